"""Ctrl-C and SIGTERM wait while a checkpoint is written: what they find on disk is whole, and nothing is torn open.

With several processes no signal interrupts at all: it is noted, and the processes agree where all of them stop.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HELD = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held() -> Iterator[None]:
    """SIGINT and SIGTERM that arrive inside are delivered, the first of them once, when the block has ended.

    Outside the main thread, where Python handles no signals, the block simply runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    before = {number: signal.signal(number, note) for number in HELD}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if caught:
            os.kill(os.getpid(), caught[0])


class Note:
    """A signal handler that remembers the first signal it gets and does nothing else."""

    number = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """What Python calls."""
        self.number = self.number or number


@contextmanager
def noting() -> Iterator[None]:
    """SIGINT and SIGTERM that arrive inside are only noted, for `noted` to tell; within another `noting`, by that."""
    if isinstance(signal.getsignal(signal.SIGTERM), Note):
        yield
        return
    note = Note()
    before = {number: signal.signal(number, note) for number in HELD}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def noted() -> int:
    """The signal that arrived inside `noting`; 0 for none, and outside."""
    handler = signal.getsignal(signal.SIGTERM)
    return handler.number if isinstance(handler, Note) else 0


def interrupt(number: int) -> KeyboardInterrupt:
    """The exception of a signal: for SIGTERM it has an argument, which is how the exit codes 130 and 143 differ."""
    return KeyboardInterrupt("terminated") if number == signal.SIGTERM else KeyboardInterrupt()
