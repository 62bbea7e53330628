"""Run a config's sweep, on this machine or on a Ray cluster; the same command goes on after any interruption.

    python -m launch.sweep configs/x.py --store DIR|gs://BUCKET/PREFIX [--sweep NAME] [--on local|ray] [--dry-run]
    python -m launch.sweep status|table|cancel|retry-failed --store ...

The config's `sweep()` yields points, dicts of {dotted field: value}, or returns a `launch.plan.Sweep`. A point becomes
one process, `python -m launch.trial STORE NUMBER`, and does what `python -m research.run CONFIG field=value ...` does.
"""

import argparse
import contextlib
import errno
import functools
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from launch.board import Board, board, one_line
from launch.drive import Cancelled, forgive, run_trials
from launch.executors import Executor, Local, RayExecutor
from launch.job import Job, claim, held_job, job_of, overrides, write_spec
from launch.pack import packs_of
from launch.plan import Point, Sweep, plan
from launch.store import Busy, Store, open_store
from launch.tally import Tally
from launch.trial import folder_of, words_of

DRIVER_S = 30.0
WAIT_S = 0.5
TRIAL = (sys.executable, "-m", "launch.trial")
INTERRUPTED, TERMINATED = 130, 143


def parser() -> argparse.ArgumentParser:
    """The arguments of the command line."""
    out = argparse.ArgumentParser(prog="python -m launch.sweep", description=__doc__, formatter_class=_Raw)
    add = out.add_argument
    add(
        "what",
        metavar="CONFIG|status|table|cancel|retry-failed",
        help="a config file, or what to do with a store",
    )
    add(
        "--store",
        required=True,
        metavar="URL",
        help="a folder or gs://bucket/prefix: all that is known lies there",
    )
    add("--sweep", default="sweep", metavar="NAME", help="the config's function (default: sweep)")
    add("--smoke", action="store_true", help="shrink every trial to seconds")
    add("--trials", type=int, metavar="N", help="another number of trials than the sweep's")
    add("--on", choices=("local", "ray"), default="local", help="where trials run (default: this machine)")
    add(
        "--address",
        default="local",
        help="of the Ray cluster, host:port (default: one of its own, on this machine)",
    )
    add("--slots", type=int, default=0, metavar="N", help="trials at once (default: 1; with Ray what fits)")
    add(
        "--population",
        type=int,
        default=0,
        metavar="P",
        help="trials of one shape that train side by side in one program (default: the sweep's, else 1)",
    )
    add("--needs", default="CPU=1", metavar="NAME=N,...", help="what a trial takes on Ray, such as TPU=4")
    add("--dry-run", action="store_true", help="print the commands of the first generation and write nothing")
    return out


class _Raw(argparse.RawDescriptionHelpFormatter):
    pass


def main(arguments: Sequence[str] | None = None, trial: Sequence[str] = TRIAL) -> int:
    """The command line; `trial` gets the store and a number. Returns 0 all done, 1 a trial failed, 2 bad input (one
    line), 130 stopped, 143 cancelled or terminated."""
    asked = parser().parse_args(arguments)
    verbs = {"status": status, "table": table, "cancel": cancel, "retry-failed": retry_failed}
    try:
        if asked.what in verbs:
            return verbs[asked.what](open_store(asked.store))
        job = job_of(asked.what, asked.sweep, asked.smoke, asked.trials)
        if asked.dry_run:
            return dry_run(job, asked.store)
        with _terminable():
            return start(job, asked, trial)
    except KeyboardInterrupt as stop:
        print("stopped; the same command goes on", file=sys.stderr)
        return TERMINATED if stop.args or isinstance(stop, Cancelled) else INTERRUPTED
    except (OSError, ValueError, KeyError, TypeError, ModuleNotFoundError) as error:
        said = error.args[0] if isinstance(error, KeyError) and error.args else error
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        said = (
            f"no space left for the store {asked.store}; make room, the same command goes on"
            if full
            else said
        )
        print(f"error: {' '.join(str(said).split())}", file=sys.stderr)
        return 2


def start(job: Job, asked: argparse.Namespace, trial: Sequence[str]) -> int:
    """Drives a sweep to its end; returns 0, or 1 when a trial failed."""
    store, needs = open_store(asked.store), needs_of(asked.needs)
    if asked.slots < 0:
        raise ValueError(f"--slots {asked.slots}: must be at least 1")
    if asked.population < 0:
        raise ValueError(f"--population {asked.population}: must be at least 1")
    store.check()
    with contextlib.ExitStack() as stack:
        lead(store, stack)
        claim(store, job)
        store.write("cancel.json", {})
        executor = executor_of(asked, [*trial, asked.store], needs)
        stack.callback(executor.stop)
        most = asked.population or (job.sweep.population if isinstance(job.sweep, Sweep) else 1)
        return int(run(store, job, executor, stack.enter_context(board()), most) > 0)


def lead(store: Store, stack: contextlib.ExitStack) -> None:
    """Holds the driver's lease of a store until `stack` closes. One left by a dead driver elsewhere is waited for.

    ValueError when another driver lives: a process of this machine, or one that renews its lease.
    """
    seen: float | None = None
    while True:
        try:
            return stack.enter_context(store.lease("driver", DRIVER_S))
        except Busy as busy:
            if busy.deadline is None or seen not in (None, busy.deadline):
                raise ValueError(f"another driver works on this store: {busy}") from None
            if seen is None:
                print(f"waiting up to {DRIVER_S:.0f} s, in case it is dead: {busy}", file=sys.stderr)
            seen = busy.deadline
        time.sleep(WAIT_S)


def executor_of(asked: argparse.Namespace, command: Sequence[str], needs: Mapping[str, float]) -> Executor:
    """Where the trials run, as asked."""
    if asked.on == "ray":
        return RayExecutor(command, asked.slots, asked.address, needs)
    return Local(command, asked.slots or 1)


def run(store: Store, job: Job, executor: Executor, shown: Board, most: int = 1) -> int:
    """Runs what is not done yet, generation by generation, and writes the tables; returns how many trials failed.

    At most `most` trials of one shape share a process.
    """
    tally = Tally(job)

    def heard(number: int, what: str) -> None:
        tally.hear(store, number, what)
        if what != "started":
            shown.say(f"trial {number} {what}: {tally.title(number)}  [{one_line(tally.view())}]")
        shown.show(tally.view())

    generations = job.generations()
    for generation, numbers in enumerate(generations):
        points = points_of(store, job, generation, tally)
        for number, point in zip(numbers, points, strict=True):
            write_spec(store, job, number, point)
            tally.take(store, number, point)
        shown.show(tally.view())
        try:
            packed = functools.partial(packs_of, job, tally.points, most=most)
            run_trials(store, numbers, executor, job.max_failures, heard, packed)
        finally:
            tally.write(store, drawn=generation + 1 == len(generations) or sys.exc_info()[0] is not None)
    shown.say(one_line(tally.view()))
    return tally.failed


def points_of(store: Store, job: Job, generation: int, tally: Tally) -> list[Point]:
    """The points of a generation: as they were planned before, or planned now from what earlier ones gave."""
    name = f"plan/gen_{generation:04d}.json"
    if kept := store.read(name):
        return list(kept["points"])
    points = plan(job.sweep, generation, tally.results()) if isinstance(job.sweep, Sweep) else list(job.sweep)
    store.write(name, {"points": points})
    return points


def first_points(job: Job) -> list[Point]:
    """The points of the first generation."""
    return plan(job.sweep, 0, []) if isinstance(job.sweep, Sweep) else list(job.sweep)


def dry_run(job: Job, url: str) -> int:
    """Prints the commands by which the trials of the first generation could be run by hand."""
    for number, point in enumerate(first_points(job)):
        workdir = Path(url) / folder_of(number) / "run"
        words = words_of({"config": job.config, "overrides": overrides(point), "smoke": job.smoke}, workdir)
        print(shlex.join([sys.executable, "-m", "research.run", *words]))
    return 0


def status(store: Store) -> int:
    """Prints how the sweep of a store stands."""
    tally = known(store)
    for number, state in tally.states.items():
        print(f"trial {number} {state}: {tally.title(number)}")
    print(one_line(tally.view()))
    return 0


def table(store: Store) -> int:
    """Writes the tables again from what the store holds, and prints the front."""
    tally = known(store)
    tally.write(store)
    print(one_line(tally.view()))
    return 0


def cancel(store: Store) -> int:
    """Asks the driver of a store to stop: its trials save and end."""
    held_job(store)
    store.write("cancel.json", {"cancel": True})
    print("the driver stops within seconds; the sweep's own command goes on")
    return 0


def retry_failed(store: Store) -> int:
    """Lets every failed trial be tried again by the next driver."""
    tally = known(store)
    failed = [number for number, state in tally.states.items() if state.startswith("failed")]
    with contextlib.ExitStack() as stack:
        lead(store, stack)
        for number in failed:
            forgive(store, number)
    print(f"{len(failed)} trials are tried again when the sweep's own command is run")
    return 0


def known(store: Store) -> Tally:
    """The sweep a store holds as it stands, without changing anything."""
    job = held_job(store)
    tally = Tally(job)
    for number in range(job.size):
        if told := store.read(f"{folder_of(number)}/spec.json"):
            tally.take(store, number, told["point"])
    return tally


def needs_of(text: str) -> dict[str, float]:
    """`"TPU=4,CPU=1"` as numbers by name. ValueError for anything else."""
    pairs = [part.partition("=") for part in text.split(",") if part]
    try:
        return {name.strip(): float(amount) for name, _, amount in pairs}
    except ValueError:
        raise ValueError(f"--needs {text!r} is not of the form NAME=NUMBER,...") from None


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM inside stops the sweep as Ctrl-C does."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt("terminated")

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
