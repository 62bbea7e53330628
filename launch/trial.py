"""One trial as one process: `python -m launch.trial STORE NUMBER` turns trials/00007/spec.json into result.json.

Several numbers are trials of one shape that train side by side (`launch.pack`). Run it as often as you like: a
trial with a result ends at once, one that was cut off goes on from its checkpoint, and two of the same number take
turns. It dies with the process that started it, so a dead driver leaves no orphan.
"""

import argparse
import contextlib
import ctypes
import errno
import importlib
import itertools
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.store import Busy, Store, open_store

LEASE_S = 60.0
PUSH_S = 60.0  # between copies to a bucket of what a trial has, and at once where there is a newer checkpoint
NEWER_S = 5.0  # between looks for one
STORE_FAILED = 128  # not the trial's fault: retried
FULL = 192  # no space left where it works
PARENT = "LAUNCH_PARENT"  # set by an executor: the process to die with
LOG = "log.txt"

Work = Callable[[Sequence[str]], int]  # the words of a research.run command line to its exit code


def folder_of(number: int) -> str:
    """The name in the store under which everything of a trial lies."""
    return f"trials/{number:05d}"


def research_run(words: Sequence[str]) -> int:
    """`python -m research.run WORDS` in this process; imported late, for it brings jax."""
    return int(importlib.import_module("research.run").main(list(words)))


def die_with_parent() -> None:
    """Asks the kernel (Linux) for SIGKILL when the parent named in the environment dies; ends now if it has."""
    parent = os.environ.pop(PARENT, "")
    if parent and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() != int(parent):
            os.kill(os.getpid(), signal.SIGKILL)


def progress(workdir: Path) -> int:
    """Checkpoints, outcomes and measurements that a run has behind it; it grows whenever a newer one is written."""
    found = itertools.chain(workdir.glob("stages/*/*/*"), workdir.glob("measured/*.json"))
    return progress_in(path.relative_to(workdir).as_posix() for path in found)


def progress_in(names: Iterable[str]) -> int:
    """`progress`, by the names of what lies in the folder."""
    newest, measured = dict[str, int](), 0
    for name in names:
        if found := re.match(r"(stages/[^/]+/[^/]+)/(\d+)(/|$)", name):
            newest[found[1]] = max(newest.get(found[1], 0), int(found[2]) + 1)
        measured += bool(re.fullmatch(r"measured/[^/]+\.json", name))
    return sum(newest.values()) + measured


def words_of(spec: Mapping[str, Any], workdir: Path) -> list[str]:
    """The research.run command line of a spec.json: on all devices that the process sees."""
    smoke = ["--smoke"] * bool(spec.get("smoke"))
    return [spec["config"], *spec["overrides"], "--workdir", str(workdir), "--devices", "0", "--quiet", *smoke]


def run(store: Store, number: int, work: Work = research_run) -> int:
    """Does trial `number`, or what is left of it; the exit code is that of `work`.

    Raises ValueError for a trial without a spec, OSError when the store fails.
    """
    place = folder_of(number)
    with held(store, place) as done:
        if done:
            return 0
        spec = spec_of(store, number)
        with workdir_of(store, f"{place}/run") as workdir, logged(workdir / LOG):
            begin(store, number, workdir)
            code = worked(lambda: work(words_of(spec, workdir)))
            conclude(store, number, workdir, code)
    if code != 0:
        store.check()  # a full disk looks like a fault of the trial: OSError says whose it is
    return code


def spec_of(store: Store, number: int) -> dict[str, Any]:
    """What a trial is to do. ValueError for one without a spec."""
    name = f"{folder_of(number)}/spec.json"
    if (spec := store.read(name)) is None:
        raise ValueError(f"the store has no {name}; was it made by launch.sweep?")
    return spec


def begin(store: Store, number: int, workdir: Path) -> None:
    """Notes an attempt, and from where it goes on."""
    before, place = progress(workdir), folder_of(number)
    store.write(f"{place}/attempt.json", {"progress": before})
    store.append_log(f"{place}/attempts.log", f"start {os.getpid()} from {before}\n")


def conclude(store: Store, number: int, workdir: Path, code: int) -> None:
    """Writes the result of a trial whose work ended with 0, last of all, and notes the end of the attempt."""
    place = folder_of(number)
    if code == 0:
        found = json.loads((workdir / "result.json").read_text())
        store.push(workdir, f"{place}/run")
        store.write(f"{place}/result.json", {"number": number, "rows": found["rows"]})
    store.append_log(f"{place}/attempts.log", f"end {os.getpid()} code {code}\n")


def worked(work: Callable[[], int]) -> int:
    """The exit code of `work`. A crash goes to the trial's log and is 1, or FULL where space was lacking."""
    try:
        return work()
    except (RuntimeError, ArithmeticError, AssertionError, AttributeError) as error:
        traceback.print_exc()
        return FULL if os.strerror(errno.ENOSPC) in str(error) else 1


@contextlib.contextmanager
def held(store: Store, place: str) -> Iterator[bool]:
    """Holds the lease of a trial, waiting while another process finishes it; yields whether it has a result."""
    while not store.read(f"{place}/result.json"):
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(store.lease(f"{place}/lease", LEASE_S))
            except Busy:
                time.sleep(0.2)
                continue
            yield store.read(f"{place}/result.json") is not None
            return
    yield True


@contextlib.contextmanager
def workdir_of(store: Store, name: str) -> Iterator[Path]:
    """The folder a trial works in: the store's own, or a scratch copy pushed with every checkpoint and at the end."""
    own = store.folder(name)
    if own is not None:
        own.mkdir(parents=True, exist_ok=True)
        yield own
        return
    over = threading.Event()
    with tempfile.TemporaryDirectory(prefix="trial-") as scratch:
        workdir = Path(scratch)
        store.pull(name, workdir)
        pusher = threading.Thread(target=_push_often, args=(store, workdir, name, over), daemon=True)
        pusher.start()
        try:
            yield workdir
        finally:
            over.set()
            pusher.join()
            store.push(workdir, name)


def _push_often(store: Store, workdir: Path, name: str, over: threading.Event) -> None:
    had, pushed = progress(workdir), time.monotonic()
    while not over.wait(NEWER_S):
        has = progress(workdir)
        if has > had or time.monotonic() - pushed > PUSH_S:
            with contextlib.suppress(OSError):  # the next push, or the last one, says so if it lasts
                store.push(workdir, name)
                had, pushed = has, time.monotonic()


@contextlib.contextmanager
def logged(path: Path) -> Iterator[None]:
    """Everything this process, its libraries and its children print goes to the end of `path`."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with path.open("a", buffering=1) as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)


def main(arguments: Sequence[str] | None = None, work: Work = research_run) -> int:
    """The command line; returns the exit code of research.run, 2 for bad input, 128 when the store failed."""
    driven = PARENT in os.environ
    die_with_parent()
    parser = argparse.ArgumentParser(prog="python -m launch.trial", description=__doc__)
    parser.add_argument("store", help="the sweep's store: a folder or gs://bucket/prefix")
    parser.add_argument("number", type=int, nargs="+", help="several train side by side")
    asked = parser.parse_args(arguments)
    try:
        store = open_store(asked.store)
        if len(asked.number) > 1:
            return int(importlib.import_module("launch.pack").run(store, asked.number))
        return run(store, asked.number[0], work)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if not driven:  # a driver looks at the store itself, and says so in one line
            print(f"error: the store failed: {error}", file=sys.stderr)
        return STORE_FAILED
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
