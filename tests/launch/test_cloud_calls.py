"""Commands as processes: their output, their end, and their children."""

import sys
import time
from pathlib import Path

import pytest

from launch.cloud_calls import Finished, Followed, call


def test_call_tells_all_three() -> None:
    assert call(["sh", "-c", "cat; echo b >&2; exit 3"], text="a") == Finished(3, "a", "b\n")


def test_call_gives_up_in_time() -> None:
    begun = time.monotonic()
    done = call(["sh", "-c", "sleep 9"], 0.2)
    assert time.monotonic() - begun < 5
    assert done.code == 124
    assert done.complaint == "no answer within 0.2 s: sh -c sleep 9 (exit 124)"


def test_no_such_program_is_one_line() -> None:
    with pytest.raises(OSError, match="no-such-program is not installed here"):
        call(["no-such-program"])


@pytest.mark.parametrize(
    ("out", "error", "says"),
    [
        ("", "", "no output (exit 1)"),
        ("o\n", "", "o (exit 1)"),
        ("o", "a\nb\n\n", "b (exit 1)"),
        ("o", "ERROR: (x) why\nPlease run:\n", "ERROR: (x) why (exit 1)"),
    ],
)
def test_a_complaint_is_the_line_that_says_why(out: str, error: str, says: str) -> None:
    assert Finished(1, out, error).complaint == says


def test_follow_prints_all_and_keeps_the_marked(capfd: pytest.CaptureFixture[str]) -> None:
    followed = Followed(["sh", "-c", "echo a; echo m: b >&2; printf 'm: \\377c'"], "m: ")
    while not followed.ended(0.05):
        pass
    assert followed.marked == ["b", "\ufffdc"]
    assert "a\n" in capfd.readouterr().out


def is_gone(pid: int) -> bool:
    """Whether a process is no more, or only waits to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("stubborn", ["", "trap '' TERM; "])
def test_end_takes_the_children_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stubborn: str) -> None:
    monkeypatch.setattr("launch.cloud_calls.GRACE_S", 0.3)
    path = tmp_path / "pid"
    followed = Followed(["bash", "-c", f"{stubborn}sleep 60 & echo $! > {path}; wait"], "m: ")
    while not path.exists() or not path.read_text():
        assert not followed.ended(0.01)
    followed.end()
    assert followed.ended(0)
    for _ in range(100):
        if is_gone(int(path.read_text())):
            break
        time.sleep(0.02)
    assert is_gone(int(path.read_text()))


def test_ctrl_c_in_the_terminal_does_not_reach_it() -> None:
    done = call([sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid())"])
    assert done.out == "True\n"
