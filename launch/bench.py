"""What a sweep costs beside its trials: `python -m launch.bench [--trials 1000] [--store DIR] [--write] [--check]`.

Plans, drives and tables a sweep of tiny trials for each sampler with the real driver, the bookkeeping of a trial in
this process, no training; and starts some real processes of trials without work. Prints a table and a line of JSON.
Bars: 1,000 trials in 60 s; driver, store and our share of a process at most 2 % of a 60 s trial. What `research.run`
itself needs to start is told beside them: a sweep pays it once a trial (with --population P once for P of them).
"""

import argparse
import io
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from launch import trial
from launch.board import board
from launch.executors import Local, Pack
from launch.job import Job, claim, overrides
from launch.plan import SAMPLERS, Choice, Float, Int, Point, Sweep
from launch.space import Domain
from launch.store import Store, open_store
from launch.sweep import run
from research.train.record import write_json

RESULT = Path("configs/results/launch/bench.json")
BAR_S = 60.0  # for 1,000 trials
BAR_SHARE, TRIAL_S = 0.02, 60.0
GENERATION = 50


def sweep_of(sampler: str, trials: int) -> Sweep:
    """A sweep of five fields, two objectives and a constraint."""
    side = math.ceil(math.sqrt(trials))
    grid: dict[str, Domain] = {"seed": Int(0, side - 1), "tracks.v2.width": Int(0, side - 1)}
    space: dict[str, Domain] = {
        "optim.lr": Float(1e-4, 1e-1, log=True),
        "optim.weight_decay": Float(0, 1e-2),
        "tracks.v2.width": Int(8, 64),
        "squeeze.sparse.m": Choice(4, 8, 16),
        "seed": Int(0, 99),
    }
    return Sweep(
        space=grid if sampler == "grid" else space,
        objectives={"error_px": "min", "ms": "min"},
        trials=trials,
        constraints={"kb": 60.0},
        sampler=sampler,
        generation=GENERATION,
    )


def played(point: Point) -> dict[str, float]:
    """The metrics of a trial that takes no time, with a trade-off between them."""
    width, lr = float(point["tracks.v2.width"]), float(point.get("optim.lr", 1e-2))
    error = 4 + (math.log10(lr) + 2) ** 2 + 10 / (1 + width) + 0.01 * float(point["seed"])
    return {"error_px": error, "ms": 0.1 + width / 50, "kb": width}


class Instant:
    """An executor whose trials are over at once, with all that `launch.trial` does around the work."""

    slots = 8

    def __init__(self, store: Store) -> None:
        """Trials of `store`; their seconds add up in `inside_s`."""
        self.store, self.inside_s, self._ended = store, 0.0, list[tuple[Pack, int]]()

    def submit(self, pack: Pack) -> None:
        """Does a trial."""
        begin = time.perf_counter()
        self._ended.append((pack, trial.run(self.store, pack[0], play)))
        self.inside_s += time.perf_counter() - begin

    def wait(self, timeout_s: float) -> tuple[Pack, int] | None:
        """The trial that waited longest to be told of."""
        return self._ended.pop(0) if self._ended else None

    def drop(self, pack: Pack) -> None:
        """Nothing runs on."""

    def stop(self) -> None:
        """Nothing runs."""


def play(words: Sequence[str]) -> int:
    """In the place of research.run: its result.json, from the point in the overrides."""
    workdir = Path(words[words.index("--workdir") + 1])
    pairs = (word.partition("=") for word in words[1 : words.index("--workdir")])
    row = played({name: float(value) for name, _, value in pairs})
    (workdir / "result.json").write_text(json.dumps({"rows": [row]}))
    return 0


def measure(url: str, sampler: str, trials: int) -> dict[str, float]:
    """Seconds of one whole sweep in a fresh store, as `launch.sweep` drives it: all but the work, in this process."""
    store, job = open_store(url), Job("bench", sampler, sweep_of(sampler, trials))
    executor, begin = Instant(store), time.perf_counter()
    with store.lease("driver", 60), board(Console(file=io.StringIO())) as shown_:
        claim(store, job)
        run(store, job, executor, shown_)
    total = time.perf_counter() - begin
    return {
        "driver_s": total - executor.inside_s,
        "trial_s": executor.inside_s,
        "total_s": total,
        "each_ms": 1000 * total / trials,
    }


def process_ms(count: int = 5) -> dict[str, float]:
    """Milliseconds of a trial's process: until its work could begin, which `research.run` takes too, and what is ours.

    Medians of `count` of each, in turns: a bare `import research.run`, and a trial run by the local executor, its work
    left out.
    """
    bare, whole = list[float](), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        store, executor = open_store(folder), Local([sys.executable, "-c", _PLAYED, folder])
        for number in range(count):
            point = {"tracks.v2.width": 8, "seed": number}
            told = {"config": "bench", "overrides": overrides(point), "smoke": False}
            store.write(f"{trial.folder_of(number)}/spec.json", told)
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", "import research.run"], check=True)
            bare.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            executor.submit((number,))
            while (ended := executor.wait(1.0)) is None:
                pass
            whole.append(time.perf_counter() - begin)
            if ended[1]:
                raise ValueError(f"a trial of the bench ended with {ended[1]}")
    start, all_ = statistics.median(bare), statistics.median(whole)
    return {"start_ms": 1000 * start, "ours_ms": 1000 * max(0.0, all_ - start)}


_PLAYED = """
import sys
import research.run
from launch import bench, trial
sys.exit(trial.main(sys.argv[1:], work=bench.play))
"""


def failures(found: dict[str, dict[str, float]], trials: int, ours_ms: float = 0.0) -> list[str]:
    """What falls short of the bars, one line each; `ours_ms` of a trial's process come on top of each trial."""
    bar_s, bar_ms = BAR_S * max(1.0, trials / 1000), 1000 * BAR_SHARE * TRIAL_S
    slow = [
        f"{name}: {row['total_s']:.1f} s for {trials} trials, at most {bar_s:g} s"
        for name, row in found.items()
        if row["total_s"] > bar_s
    ]
    return slow + [
        f"{name}: {row['each_ms'] + ours_ms:.0f} ms a trial, at most {bar_ms:g} ms"
        for name, row in found.items()
        if row["each_ms"] + ours_ms > bar_ms
    ]


def shown(found: dict[str, dict[str, float]]) -> Table:
    """The measurements for people."""
    table = Table("sampler", *next(iter(found.values())))
    for name, row in found.items():
        table.add_row(name, *(f"{value:.2f}" for value in row.values()))
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 0, with --check 1 where a bar is missed, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m launch.bench", description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--store", help="a fresh folder or gs://bucket/prefix (default: a temporary folder)")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT}")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    asked = parser.parse_args(arguments)
    if asked.trials < 1:
        print("error: --trials must be at least 1", file=sys.stderr)
        return 2
    found: dict[str, dict[str, float]] = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            for sampler in asked.samplers:
                found[sampler] = measure(f"{asked.store or folder}/{sampler}", sampler, asked.trials)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    Console().print(shown(found))
    process = process_ms()
    start, ours = process["start_ms"], process["ours_ms"]
    print(f"a process: {start:.0f} ms until research.run could begin, {ours:.0f} ms more of ours")
    wrong = failures(found, asked.trials, process["ours_ms"])
    told: dict[str, Any] = {"bench": "launch", "trials": asked.trials, "found": found, "process": process}
    told["failures"] = wrong
    if asked.write:
        write_json(RESULT, told)
    print(json.dumps(told))
    for line in wrong:
        print(line, file=sys.stderr)
    return int(asked.check and bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
