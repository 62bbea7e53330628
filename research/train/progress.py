"""Live progress of long work: bars on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Reporter:
    """Says what happens. `quiet` says nothing; a pipe gets one line per `every_s` seconds instead of bars."""

    def __init__(self, quiet: bool = False, every_s: float = 15.0) -> None:
        """A reporter on standard output."""
        self.quiet, self.every_s = quiet, every_s
        self.console = Console(quiet=quiet, highlight=False)

    def show(self, table: RenderableType) -> None:
        """A result: printed even when quiet."""
        Console(highlight=False).print(table)

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        """A bar of `total` steps of which `done` are behind us; advance it through the `Bar` it yields."""
        if self.quiet or not self.console.is_terminal:
            yield Bar(self, title, total, done, None)
            return
        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console) as progress:
            progress.add_task(title, total=total, completed=done, note="")
            yield Bar(self, title, total, done, progress)


class Bar:
    """One bar; see `Reporter.bar`."""

    def __init__(
        self, reporter: Reporter, title: str, total: int, done: int, progress: Progress | None
    ) -> None:
        """`progress` None writes plain lines."""
        self.reporter, self.title, self.total, self.done, self.progress = (
            reporter,
            title,
            total,
            done,
            progress,
        )
        self._said = time.monotonic()

    def to(self, done: int, note: str = "") -> None:
        """Moves the bar to `done` steps with a short note."""
        self.done = done
        if self.progress is not None:
            task = self.progress.task_ids[0]
            self.progress.update(task, completed=done)
            if note:
                self.progress.update(task, note=note)
        elif done >= self.total or time.monotonic() - self._said > self.reporter.every_s:
            self._said = time.monotonic()
            self.reporter.say(f"{self.title:<28} {done}/{self.total} {note}")
