"""What a running sweep shows: a live table on a terminal, plain lines elsewhere."""

import dataclasses as dc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table


@dc.dataclass(frozen=True)
class View:
    """A sweep at one moment. `best` holds, for each objective, the value and the trial that has it."""

    total: int
    done: int = 0
    failed: int = 0
    running: tuple[int, ...] = ()
    best: Mapping[str, tuple[float, int]] = dc.field(default_factory=dict)
    pareto: int = 0
    eta_s: float | None = None


def eta_s(view: View, ended: int, elapsed_s: float) -> float | None:
    """Seconds until everything has run, at the rate at which trials have `ended` since this driver started."""
    left = view.total - view.done - view.failed
    return elapsed_s / ended * left if ended and left else None


def duration(seconds: float | None) -> str:
    """A length of time for people: "-", "42 s", "12 min", "3.5 h"."""
    if seconds is None:
        return "-"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def facts(view: View) -> list[tuple[str, str]]:
    """The lines of the table: what, and how much."""
    running = " ".join(map(str, view.running)) or "-"
    best = [(f"best {name}", f"{value:.6g} (trial {number})") for name, (value, number) in view.best.items()]
    return [
        ("running", running),
        ("done", f"{view.done} of {view.total}"),
        ("failed", str(view.failed)),
        *best,
        *([("Pareto front", f"{view.pareto} trials")] if len(view.best) > 1 else []),
        ("left", duration(view.eta_s)),
    ]


def one_line(view: View) -> str:
    """The same in one line."""
    return ", ".join(f"{name} {value}" for name, value in facts(view))


class Board:
    """Shows views as they come; `say` adds a line above. Made by `board`."""

    def __init__(self, console: Console, live: Live | None) -> None:
        """`live` None writes plain lines."""
        self._console, self._live = console, live

    def say(self, text: str) -> None:
        """One line that stays."""
        self._console.print(text, soft_wrap=True, markup=False)

    def show(self, view: View) -> None:
        """The sweep as it is now; without a terminal nothing, lines come with `say`."""
        if self._live is not None:
            self._live.update(_table(facts(view)))


def _table(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table(show_header=False)
    for name, value in rows:
        table.add_row(name, value)
    return table


@contextmanager
def board(console: Console | None = None) -> Iterator[Board]:
    """A board on standard output."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        yield Board(console, None)
        return
    with Live(console=console, refresh_per_second=4) as live:
        yield Board(console, live)
