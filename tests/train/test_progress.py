"""Progress: silent, a line now and then into a pipe, a bar on a terminal."""

import io

import pytest
from rich.console import Console

from research.train import progress
from research.train.progress import Reporter


def written(reporter: Reporter, terminal: bool) -> io.StringIO:
    out = io.StringIO()
    reporter.console = Console(file=out, force_terminal=terminal, quiet=reporter.quiet, width=120)
    return out


def test_quiet_says_nothing() -> None:
    reporter = Reporter(quiet=True)
    out = written(reporter, terminal=False)
    with reporter.bar("dense", 3) as bar:
        bar.to(3, "loss 1")
    reporter.say("done")
    assert out.getvalue() == ""


def test_a_pipe_gets_a_line_when_time_has_passed_and_one_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    reporter = Reporter(every_s=15.0)
    out = written(reporter, terminal=False)
    with reporter.bar("dense", 30) as bar:
        for done in range(31):
            bar.to(done, f"loss {done}")
            clock[0] += 1.0
    steps = [line.split()[1] for line in out.getvalue().splitlines()]
    assert steps == ["16/30", "30/30"]
    assert "loss 30" in out.getvalue()


def test_long_lines_are_not_broken_in_a_pipe() -> None:
    reporter = Reporter()
    out = written(reporter, terminal=False)
    reporter.say("x" * 500)
    assert out.getvalue() == "x" * 500 + "\n"


def test_a_terminal_gets_a_bar_with_the_last_note() -> None:
    reporter = Reporter()
    out = written(reporter, terminal=True)
    with reporter.bar("dense", 4) as bar:
        bar.to(2, "loss 0.5")
        bar.to(4)
        assert bar.progress is not None
        task = bar.progress.tasks[0]
        assert (task.completed, task.fields["note"]) == (4, "loss 0.5")
    assert "dense" in out.getvalue()
    assert "4/4" in out.getvalue()
