"""One way to end, whatever happens: the work stops, what it rents is deleted, one line and an exit code say how."""

import fcntl
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Over(Exception):
    """The end, with an exit code and one line."""

    def __init__(self, code: int, line: str) -> None:
        super().__init__(line)
        self.code = code


def say(line: str) -> None:
    """Tell the person, beside the command's own output. A closed terminal stops nothing."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        return


def work_then_delete(work: Callable[[], None], delete: Callable[[], None]) -> Over:
    """Do the work, then delete, even when the work raises or a signal comes at any moment; returns how it ended.

    Over is caught from both (the deletion's counts more); anything else goes on after the deletion.
    """
    with _signals_raise():
        try:
            # Two finally: a signal between the work's end and the first line of the outer one still deletes.
            try:
                work()
            finally:
                try:
                    _ignore_signals()
                finally:
                    delete()
        except Over as over:
            return over
    return Over(0, "done")


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Inside, the first of SIGNALS raises Over; further ones count for nothing."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        _ignore_signals()
        raise Over(128 + number, f"stopped by {signal.Signals(number).name}; the same command goes on")

    with _handled_by(end):
        yield


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Inside, this handler; but a signal that is ignored, as SIGHUP is under nohup, stays so."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number in SIGNALS if before[number] != signal.SIG_IGN]
    try:
        for number in heard:
            signal.signal(number, handler)
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


@contextmanager
def signals_wait() -> Iterator[None]:
    """Inside, signals are kept until its end: a request cut off half way may come to life after we looked for it."""
    kept: list[int] = []
    with _handled_by(lambda number, frame: kept.append(number)):
        yield
    if kept:
        signal.raise_signal(kept[0])


@contextmanager
def alone(ledger: Path) -> Iterator[None]:
    """Only one program looks after what a ledger counts. Raises ValueError for the second."""
    ledger.parent.mkdir(parents=True, exist_ok=True)
    with ledger.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another program is at work with {ledger}") from None
        yield


def checked_name(name: str) -> str:
    """A name that Google Cloud and Kubernetes take. Raises ValueError."""
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", name):
        raise ValueError(
            f"--name {name}: at most 40 lower-case letters, digits and -, starting with a letter"
        )
    return name


def split_command(words: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """A command line (default: this program's) cut at its first `--`: our words, and the command to run."""
    words = list(sys.argv[1:] if words is None else words)
    cut = words.index("--") if "--" in words else len(words)
    return words[:cut], words[cut + 1 :]


def checked_command(words: Sequence[str]) -> tuple[str, ...]:
    """The command to run. Raises ValueError if there is none, or if its store would be deleted with the machine."""
    command = tuple(words)
    if not command:
        raise ValueError("say what to run: ... -- python -m launch.sweep CONFIG --store gs://bucket/name")
    for word, after in pairwise([*command, ""]):
        named = word.startswith("--store=") or word in ("--store", "launch.trial", "launch.slice")
        store = word.removeprefix("--store=") if word.startswith("--store=") else after
        if named and not store.startswith("gs://"):
            raise ValueError(f"the store {store} would go with the machine; give gs://bucket/name")
    return command


def checked_numbers(**numbers: float) -> None:
    """Raises ValueError unless all are above 0 and finite."""
    for name, number in numbers.items():
        if not 0 < number < float("inf"):
            raise ValueError(f"--{name.replace('_', '-')} must be a number above 0")
