"""Run a config's sweep, one trial after another on this machine.

    python -m launch.sweep configs/x.py --store sweeps/x [--sweep NAME] [--smoke] [--dry-run]

The config's `sweep()` yields points, dicts of {dotted field: value}. Point i becomes the process
`python -m research.run CONFIG field=value ... --workdir STORE/trial-<i>`. A trial that has its result.json is
not run again, so the same command goes on after any interruption.
"""

import argparse
import csv
import io
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from research import spec
from research.report.atomic import write_text

Point = Mapping[str, Any]
Runner = Callable[[Sequence[str]], int]  # a command to its exit code


def points_of(config: Path, name: str) -> list[Point]:
    """The points that the function `name` of a config file yields.

    Raises ValueError if there is no such function or no point, and what `spec.load` raises for a point that
    does not fit the config: a typo is found before the first trial.
    """
    sweep = getattr(spec.config_module(config), name, None)
    if not callable(sweep):
        raise ValueError(f"{config} has no {name}(); write one that yields {{'dotted.field': value}}")
    points: list[Point] = list(sweep())
    if not points:
        raise ValueError(f"{name}() of {config} yields no point")
    for point in points:
        spec.load(config, overrides(point))
    return points


def overrides(point: Point) -> list[str]:
    """A point as the words of a command line, `field=literal`."""
    return [f"{field}={value!r}" for field, value in point.items()]


def command(config: Path, point: Point, workdir: Path, smoke: bool) -> list[str]:
    """The command of one trial."""
    words = [sys.executable, "-m", "research.run", str(config), *overrides(point), "--workdir", str(workdir)]
    return words + ["--smoke"] * smoke


def claim(store: Path, identity: str) -> None:
    """Make `store` this sweep's. Raises ValueError if it is another's, OSError if it cannot be written."""
    store.mkdir(parents=True, exist_ok=True)
    mark = store / "sweep.json"
    if mark.exists() and mark.read_text() != identity:
        raise ValueError(f"{store} holds another sweep (see {mark}); choose another --store")
    write_text(mark, identity)


def trials_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV, with a column for every key in order of appearance."""
    table = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [[row.get(column, "") for column in columns] for row in rows]
    csv.writer(table, lineterminator="\n").writerows([columns, *lines])
    return table.getvalue()


def run(config: Path, points: Sequence[Point], store: Path, smoke: bool, runner: Runner) -> int:
    """Run what is not done yet, writing STORE/trials.csv after each trial; returns how many failed."""
    identity = {"config": config.name, "smoke": smoke, "points": [overrides(point) for point in points]}
    claim(store, json.dumps(identity, indent=1) + "\n")
    rows: list[dict[str, Any]] = [{"trial": i, "state": "waiting", **point} for i, point in enumerate(points)]
    for row, point in zip(rows, points, strict=True):
        workdir = store / f"trial-{row['trial']:04d}"
        result = workdir / "result.json"
        code = 0 if result.exists() else runner(command(config, point, workdir, smoke))
        row["state"] = "done" if code == 0 and result.exists() else f"failed ({code})"
        if row["state"] == "done":
            scores = json.loads(result.read_text())["rows"][-1]
            row |= {key: x for key, x in scores.items() if isinstance(x, int | float) and key != "row"}
        print(f"trial {row['trial']} {row['state']}: {' '.join(overrides(point))}", flush=True)
        write_text(store / "trials.csv", trials_csv(rows))
    return sum(row["state"] != "done" for row in rows)


def main(arguments: Sequence[str] | None = None, runner: Runner = subprocess.call) -> int:
    """The command line; returns 0 all done, 1 a trial failed, 2 bad input (one line), 130 stopped."""
    parser = argparse.ArgumentParser(prog="python -m launch.sweep", description=run.__doc__)
    add = parser.add_argument
    add("config", type=Path)
    add("--sweep", default="sweep", metavar="NAME", help="the config's function that yields points")
    add("--store", type=Path, required=True, metavar="DIR", help="where trials and trials.csv go")
    add("--smoke", action="store_true", help="shrink every trial to seconds")
    add("--dry-run", action="store_true", help="print the commands and write nothing")
    asked = parser.parse_args(arguments)
    try:
        points = points_of(asked.config, asked.sweep)
        if asked.dry_run:
            for i, point in enumerate(points):
                print(shlex.join(command(asked.config, point, asked.store / f"trial-{i:04d}", asked.smoke)))
            return 0
        return int(run(asked.config, points, asked.store, asked.smoke, runner) > 0)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
