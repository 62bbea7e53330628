"""What a sweep costs beside its trials: `python -m launch.bench [--trials 1000] [--store DIR] [--check]`.

Plans, drives and tables a sweep of tiny trials for each sampler: real driver loop, real bookkeeping of a trial in this
process, no training. Prints a table and a line of JSON. Bars: 1,000 trials in 60 s, 2 % of a 60 s trial for each.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from launch import trial
from launch.drive import run_trials
from launch.plan import SAMPLERS, Choice, Float, Int, Point, Sweep, plan
from launch.space import Domain
from launch.store import Store, open_store
from launch.table import front, metrics_of, write_table

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
        self.store, self.inside_s, self._ended = store, 0.0, list[tuple[int, int]]()

    def submit(self, number: int) -> None:
        """Does a trial."""
        begin = time.perf_counter()
        self._ended.append((number, trial.run(self.store, number, self._work)))
        self.inside_s += time.perf_counter() - begin

    def wait(self, timeout_s: float) -> tuple[int, int] | None:
        """The trial that waited longest to be told of."""
        return self._ended.pop(0) if self._ended else None

    def drop(self, number: int) -> None:
        """Nothing runs on."""

    def stop(self) -> None:
        """Nothing runs."""

    def _work(self, words: Sequence[str]) -> int:
        """In the place of research.run: its result.json, from the point in the overrides."""
        workdir = Path(words[words.index("--workdir") + 1])
        pairs = (word.partition("=") for word in words[1 : words.index("--workdir")])
        row = played({name: float(value) for name, _, value in pairs})
        (workdir / "result.json").write_text(json.dumps({"rows": [row]}))
        return 0


def measure(url: str, sampler: str, trials: int) -> dict[str, float]:
    """Seconds of one sweep, part by part, in a fresh store."""
    store, sweep, clock = open_store(url), sweep_of(sampler, trials), _Clock()
    executor, points, found = Instant(store), dict[int, Point](), dict[int, dict[str, float]]()
    with store.lease("driver", 60):
        for generation in range(math.ceil(trials / GENERATION)):
            known = [(number, point, found[number]) for number, point in points.items()]
            fresh = plan(sweep, generation, known)
            store.write(f"plan/gen_{generation:04d}.json", {"points": fresh})
            clock.lap("plan")
            numbers = range(generation * GENERATION, generation * GENERATION + len(fresh))
            for number, point in zip(numbers, fresh, strict=True):
                overrides = [f"{field}={value!r}" for field, value in point.items()]
                spec = {"number": number, "config": "bench", "overrides": overrides, "point": point}
                store.write(f"{trial.folder_of(number)}/spec.json", spec)
                points[number] = point
            run_trials(store, numbers, executor, 3, lambda number, what: None)
            for number in numbers:
                found[number] = metrics_of(store.read(f"{trial.folder_of(number)}/result.json") or {})
            clock.lap("drive")
            states = dict.fromkeys(points, "done")
            last = len(points) == trials
            write_table(store, states, points, found, sweep.objectives, sweep.constraints, drawn=last)
            clock.lap("table")
    seconds = clock.seconds
    return {
        "plan_s": seconds["plan"],
        "driver_s": seconds["drive"] - executor.inside_s,
        "trial_s": executor.inside_s,
        "table_s": seconds["table"],
        "total_s": sum(seconds.values()),
        "each_ms": 1000 * sum(seconds.values()) / trials,
        "front": float(len(front(found, sweep.objectives, sweep.constraints))),
    }


class _Clock:
    """Adds the time since the last lap to a part."""

    def __init__(self) -> None:
        self.seconds, self._last = dict[str, float](), time.perf_counter()

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
        self._last = now


def failures(found: dict[str, dict[str, float]], trials: int) -> list[str]:
    """What falls short of the bars, one line each."""
    bar_s, bar_ms = BAR_S * max(1.0, trials / 1000), 1000 * BAR_SHARE * TRIAL_S
    slow = [
        f"{name}: {row['total_s']:.1f} s for {trials} trials, at most {bar_s:g} s"
        for name, row in found.items()
        if row["total_s"] > bar_s
    ]
    return slow + [
        f"{name}: {row['each_ms']:.0f} ms a trial, at most {bar_ms:g} ms"
        for name, row in found.items()
        if row["each_ms"] > bar_ms
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
    parser.add_argument("--check", action="store_true")
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
    wrong = failures(found, asked.trials)
    told: dict[str, Any] = {"bench": "launch", "trials": asked.trials, "found": found, "failures": wrong}
    print(json.dumps(told))
    for line in wrong:
        print(line, file=sys.stderr)
    return int(asked.check and bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
