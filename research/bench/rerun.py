"""How long an edit takes in a notebook: `python -m research.bench.rerun [--check]`.

Fits V1 of a config for some steps, then again after editing a float (the learning rate) and the number of steps.
Bars: an edit is back in at most 10 s and compiles nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from research.door import find_arm, load
from research.spec import Experiment
from research.train.fit import fit
from research.train.runtime import prepare_runtime
from research.train.step import compiled_step

BAR_S = 10.0


def timed_fit(exp: Experiment, folder: Path) -> tuple[float, int]:
    """Seconds that fitting the baseline takes in a fresh folder, and how many steps had to be compiled for it."""
    before, start = compiled_step.cache_info().misses, time.monotonic()
    fit(exp, find_arm(exp, exp.baseline), folder)
    return time.monotonic() - start, compiled_step.cache_info().misses - before


def measure(config: str, steps: int) -> dict[str, dict[str, float]]:
    """`{edit: {"seconds", "compiled"}}` for a first fit and for edits of it, all in this process."""
    at = f"tracks.v1.stages.dense.steps={steps}"
    edits = {
        "first fit": (at,),
        "learning rate": (at, "optim.lr=3e-3"),
        "number of steps": (at.replace(f"={steps}", f"={steps + 5}"),),
    }
    out = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, overrides) in enumerate(edits.items()):
            seconds, compiled = timed_fit(load(config, *overrides), Path(folder) / str(number))
            out[name] = {"seconds": seconds, "compiled": float(compiled)}
    return out


def failures(found: dict[str, dict[str, float]]) -> list[str]:
    """What falls short of the bars, one line each."""
    edits = {name: row for name, row in found.items() if name != "first fit"}
    slow = [
        f"{n}: {r['seconds']:.1f} s, at most {BAR_S:g} s" for n, r in edits.items() if r["seconds"] > BAR_S
    ]
    return slow + [
        f"{n}: compiled {r['compiled']:g} steps, none allowed" for n, r in edits.items() if r["compiled"]
    ]


def main(argv: list[str] | None = None) -> int:
    """Prints the table and the JSON line; 1 with --check when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.rerun", description=__doc__)
    parser.add_argument("config", nargs="?", default="configs/v2.py")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    args = parser.parse_args(argv)
    prepare_runtime()
    found = measure(args.config, args.steps)
    table = Table(
        "edit", "seconds", "steps compiled", title=f"V1 of {args.config}, {args.steps} steps, measured"
    )
    for name, row in found.items():
        table.add_row(name, f"{row['seconds']:.1f}", f"{row['compiled']:g}")
    Console().print(table)
    missed = failures(found)
    print(json.dumps({"bench": "rerun", **found, "missed": missed}))
    return 1 if args.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
