r"""One trial over all hosts of a slice: `python -m launch.slice STORE NUMBER` on each of them.

    python -m launch.tpu_vm ... --worker all -- python -m launch.slice gs://bucket/v2 0
    python -m launch.gke jobset ... -- python -m launch.slice gs://bucket/v2 0
    python -m launch.slice sweeps/v2 0 --processes 2 --devices 2      # this machine, for a try

The first process does what launch.trial does: it alone has the store, the lease and the workdir. The others are told
what to run. With several numbers the trials are done one after another. Exit codes: those of launch.trial for the
first trial that does not end with 0; 134 when another host is gone. The same command goes on.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence

from launch import trial
from launch.distributed import add_place, check_place, joined, together
from research.train.hosts import is_first, several, share
from research.train.signals import noted, noting

DONE = "done"


def lead(store: str, number: int) -> int:
    """The first process: a trial as launch.trial does it, with the others called in for its work. Its exit code."""
    code = trial.STORE_FAILED
    try:
        code = trial.main([store, str(number)], work=_call_in)
    finally:
        share((DONE, code))
    return code


def _call_in(words: Sequence[str]) -> int:
    if number := noted():  # while it waited for the lease
        return 128 + number
    share(("run", list(words)))
    return trial.research_run(words)


def follow() -> int:
    """Any other process: does what the first calls it in for, until that is done. The first one's exit code."""
    while True:
        what, told = share(("", None))
        if what == DONE:
            return int(told)
        trial.research_run(told)


def run(store: str, numbers: Sequence[int]) -> int:
    """Does trials one after another in all processes that have joined; 0, or the first other exit code."""
    with _signals():
        for number in numbers:
            code = lead(store, number) if is_first() else follow()
            if code:
                return code
    return 0


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    with noting() if several() else contextlib.nullcontext():
        yield


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(
        prog="python -m launch.slice",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out.add_argument("store", help="the sweep's store: a folder or gs://bucket/prefix")
    out.add_argument("number", type=int, nargs="+")
    add_place(out)
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    trial.die_with_parent()
    asked = parser().parse_args(arguments)
    try:
        check_place(asked)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if asked.processes:
        words = [asked.store, *map(str, asked.number), "--heartbeat", str(asked.heartbeat)]
        return together([sys.executable, "-m", "launch.slice", *words], asked.processes, asked.devices)
    return joined(lambda: run(asked.store, asked.number), asked.heartbeat)


if __name__ == "__main__":
    sys.exit(main())
