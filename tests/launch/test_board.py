"""What a sweep shows while it runs."""

import io
import re

import pytest
from rich.console import Console

from launch.board import View, board, duration, eta_s, facts, one_line

VIEW = View(
    total=8, done=3, failed=1, running=(4, 5), best={"ms": (1.5, 2), "px": (4.25, 0)}, pareto=2, eta_s=90.0
)


def test_one_line_says_everything() -> None:
    assert one_line(VIEW) == (
        "running 4 5, done 3 of 8, failed 1, best ms 1.5 (trial 2), best px 4.25 (trial 0), "
        "Pareto front 2 trials, left 90 s"
    )


def test_no_front_is_shown_for_one_objective() -> None:
    assert "Pareto front" not in dict(facts(View(total=1, best={"ms": (1.0, 0)})))


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (42.4, "42 s"), (720.0, "12 min"), (12600.0, "3.5 h")]
)
def test_durations_are_for_people(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_the_estimate_goes_on_at_the_rate_so_far() -> None:
    assert eta_s(VIEW, ended=2, elapsed_s=60.0) == 120.0
    assert eta_s(VIEW, ended=0, elapsed_s=60.0) is None
    assert eta_s(View(total=3, done=3), ended=3, elapsed_s=60.0) is None


def test_a_pipe_gets_plain_lines() -> None:
    out = io.StringIO()
    with board(Console(file=out, width=20)) as shown:
        shown.show(VIEW)
        shown.say("trial 3 done: [optim] and a line that is longer than the console")
    assert out.getvalue() == "trial 3 done: [optim] and a line that is longer than the console\n"


def test_a_terminal_gets_a_live_table() -> None:
    out = io.StringIO()
    with board(Console(file=out, force_terminal=True, width=60)) as shown:
        shown.show(VIEW)
        shown.say("trial 3 done")
    assert "3 of 8" in out.getvalue()
    assert "\x1b[" in out.getvalue()
    assert re.search(r"trial .*3.* done", out.getvalue())
