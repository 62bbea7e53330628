"""What a TPU will take, by its compiler: the estimates kept in configs/results/launch/precompile.json.

    python -m launch.forecast                     # chip-hours of the shipped sweeps; exit 1 when an estimate is stale
    python -m launch.forecast --compile stale     # compile again what is stale or lacking (extra tpu-aot, minutes)
    python -m launch.forecast --compile all       # all of it again: make check-tpu

An estimate belongs to a config by its fingerprint: a changed config makes it stale, and the file must list it as
outdated. No number in it was measured.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from launch.job import job_of
from launch.precompile import arguments_of, precompile, problems
from research.door import fingerprint, load
from research.train.dispatch import STEPS

FILE = Path("configs/results/launch/precompile.json")
NOTE = (
    "Estimates of the TPU compiler for chips that were not there; nothing here was measured. Each report was made by "
    "the words it names (compile times left out): python -m launch.forecast --compile all."
)
MAIN = ("configs/v2.py", "configs/transfer.py", "configs/teacher_mediapipe.py", "configs/photos.py")
SLICES = ("v5e:2x2", "v5e:4x4")
PACKED, DENSE = 8, "configs/v2.py --topology v5e:2x2 --stage v2.0-dense"
COMMANDS = (
    *(f"{config} --topology {topology}" for config in MAIN for topology in SLICES),
    f"{DENSE} --trials {PACKED}",
    f"{DENSE} optim.compute=bfloat16",
    f"{DENSE} --scaling",
    f"{DENSE} --trials 32 --one-seed",
    f"{DENSE} --trials 32 --one-seed optim.compute=bfloat16",
)
SHIPPED = ("configs/sweeps/v2.py", ("seeds", "frontier", "distillation"))

Report = Mapping[str, Any]


def kept(path: Path = FILE) -> dict[str, Report]:
    """The kept reports by command. ValueError where there are none."""
    if not path.is_file():
        raise ValueError(f"no estimates at {str(path)!r}; make them: python -m launch.forecast --compile all")
    return {report["command"]: report for report in json.loads(path.read_text())["reports"]}


def stale(reports: Mapping[str, Report], commands: Sequence[str] = COMMANDS) -> dict[str, str]:
    """The commands whose report is lacking or was made for another config, and why."""
    found = {}
    for command in commands:
        report, asked = reports.get(command), arguments_of(command.split())
        if report is None:
            found[command] = "there is no estimate of it"
        elif report["fingerprint"] != fingerprint(load(asked.config, *asked.overrides)):
            found[command] = f"{asked.config} is another one since"
        elif report["steps_a_dispatch"] not in (1, STEPS):
            found[command] = f"a dispatch holds {STEPS} steps since"
    return found


def compile_again(commands: Sequence[str], path: Path, jobs: int) -> list[str]:
    """Compiles commands and keeps each report as it comes; a line for every step that does not fit."""
    wrong = []
    for command in commands:
        print(f"compiling {command}", file=sys.stderr, flush=True)
        report = precompile(arguments_of([*command.split(), "--jobs", str(jobs)]))
        wrong += problems(report)
        for row in (*report["rows"], *report["scaling"]):
            row.pop("compile_s")
        reports = (kept(path) if path.is_file() else {}) | {command: {"command": command} | report}
        chosen = [reports[name] for name in COMMANDS if name in reports]
        outdated = sorted(stale(reports, tuple(reports)))
        path.write_text(json.dumps({"note": NOTE, "outdated": outdated, "reports": chosen}, indent=1) + "\n")
    return wrong


def chip_hours(reports: Mapping[str, Report], name: str) -> dict[str, float]:
    """Chip-hours of all steps of a shipped sweep, one trial after another over all chips of a slice, at least."""
    size = job_of(SHIPPED[0], name).size
    found = {"trials": float(size)}
    for topology, column in zip(SLICES, ("v5e_4", "v5e_16"), strict=True):
        report = reports.get(f"{MAIN[0]} --topology {topology}")
        found[column] = size * report["total"]["chip_hours"] if report else math.nan
    return found


def packed_gain(reports: Mapping[str, Report]) -> float:
    """How many times as fast the dense stage of `PACKED` trials is in one program on v5e-4 as one after another."""
    alone = next(
        row for row in reports[f"{MAIN[0]} --topology {SLICES[0]}"]["rows"] if "v2.0-dense" in row["stages"]
    )
    together = reports[f"{DENSE} --trials {PACKED}"]["rows"][0]
    return float(PACKED * alone["step_ms"] / together["step_ms"])


def shown(reports: Mapping[str, Report]) -> Table:
    """The shipped sweeps for people."""
    title = f"{SHIPPED[0]}: chip-hours of all steps at least, the compiler's estimates, not measured"
    columns = ("sweep", "trials", "v5e-4, one trial after another", "v5e-16, the same")
    table = Table(*columns, title=title, box=box.SIMPLE)
    for name in SHIPPED[1]:
        row = chip_hours(reports, name)
        table.add_row(name, f"{row['trials']:.0f}", f"{row['v5e_4']:.3g}", f"{row['v5e_16']:.3g}")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 0, 1 (stale, or something does not fit: a line each) or 2 (bad input)."""
    parser = argparse.ArgumentParser(
        prog="python -m launch.forecast", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--compile", choices=("stale", "all"), help="with the extra tpu-aot: compile again")
    parser.add_argument("--jobs", type=int, default=1, help="programs compiled at once")
    parser.add_argument("--file", type=Path, default=FILE)
    asked = parser.parse_args(arguments)
    try:
        wrong = list[str]()
        if asked.compile:
            again = COMMANDS if asked.compile == "all" else list(stale(_any(asked.file)))
            wrong = compile_again(again, asked.file, asked.jobs)
        reports = kept(asked.file)
        wrong += [f"{command}: {why}; make check-tpu" for command, why in stale(reports).items()]
        Console(width=None if sys.stdout.isatty() else 120).print(shown(reports))
        if not wrong:
            gain = packed_gain(reports)
            print(f"--population {PACKED}: the dense stage of {PACKED} trials on v5e-4 {gain:.2f} times as fast")
    except (OSError, ValueError, KeyError, ModuleNotFoundError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return int(bool(wrong))


def _any(path: Path) -> dict[str, Report]:
    return kept(path) if path.is_file() else {}


if __name__ == "__main__":
    sys.exit(main())
