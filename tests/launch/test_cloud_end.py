"""The end is always the same: deleted once, one exit code, one line."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.cloud_end import (
    SIGNALS,
    Over,
    alone,
    checked_command,
    checked_name,
    checked_numbers,
    say,
    signals_wait,
    split_command,
    work_then_delete,
)


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Signals as in a terminal, however the tests were started."""
    before = [signal.signal(number, signal.default_int_handler) for number in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


def test_done_failed_and_not_deleted() -> None:
    log: list[str] = []

    def fail() -> None:
        raise Over(1, "failed")

    def fail_again() -> None:
        raise Over(2, "not deleted")

    assert work_then_delete(lambda: log.append("work"), lambda: log.append("delete")).code == 0
    assert log == ["work", "delete"]
    assert str(work_then_delete(fail, lambda: log.append("delete"))) == "failed"
    assert log == ["work", "delete", "delete"]
    assert work_then_delete(fail, fail_again).code == 2


def test_a_bug_is_raised_after_the_deletion() -> None:
    log: list[str] = []
    with pytest.raises(ZeroDivisionError):
        work_then_delete(lambda: log.append(str(1 // 0)), lambda: log.append("delete"))
    assert log == ["delete"]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_work_and_not_the_deletion(number: int) -> None:
    log: list[str] = []
    before = [signal.getsignal(each) for each in SIGNALS]

    def work() -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)

    def delete() -> None:
        os.kill(os.getpid(), number)
        time.sleep(0.05)
        log.append("delete")

    over = work_then_delete(work, delete)
    assert over.code == 128 + number
    assert log == ["delete"]
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """Under nohup, the end of the terminal is not the end of the work."""
    log: list[str] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def work() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        with signals_wait():
            os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.02)
        log.append("work")

    assert work_then_delete(work, lambda: log.append("delete")).code == 0
    assert log == ["work", "delete"]
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_at_no_moment_does_a_signal_leave_it_undeleted(tmp_path: Path) -> None:
    """Signals at many moments of a program that makes and deletes a file: the file is never left."""
    program = """
import sys, time
from pathlib import Path
from launch.cloud_end import work_then_delete
made = Path(sys.argv[1])
def work():
    made.write_text("x")
    print("made", flush=True)
    for _ in range(20):
        sum(range(1000))
def delete():
    made.unlink(missing_ok=True)
over = work_then_delete(work, delete)
sys.exit(over.code)
"""
    made = tmp_path / "made"
    codes = set()
    for number in range(12):
        command = [sys.executable, "-c", program, str(made)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(number * 1e-4)
            process.send_signal(signal.SIGTERM)
            process.wait(10)
        codes.add(process.returncode)
        assert not made.exists()
    assert codes <= {0, 143, -15}  # -15: after the deletion, when there is nothing left to do


def test_signals_wait_for_the_end_of_a_request() -> None:
    log: list[str] = []

    def work() -> None:
        with signals_wait():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.02)
            log.append("request")
        time.sleep(1)
        log.append("never")

    assert work_then_delete(work, lambda: None).code == 143
    assert log == ["request"]


def test_a_closed_terminal_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as closed:
        monkeypatch.setattr(sys, "stderr", closed)
        say("hello")
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), closed.fileno())


def test_alone(tmp_path: Path) -> None:
    ledger = tmp_path / "runs" / "a.json"
    with alone(ledger), pytest.raises(ValueError, match="another program is at work"), alone(ledger):
        pass
    with alone(ledger):
        assert not ledger.exists()


def test_a_command_line_is_cut_once() -> None:
    assert split_command(["a", "--b", "--", "c", "--", "d"]) == (["a", "--b"], ["c", "--", "d"])
    assert split_command(["a"]) == (["a"], [])
    assert split_command(["--"]) == ([], [])


@pytest.mark.parametrize("name", ["a", "v2", "a-b-9", "a" * 40])
def test_good_names(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "2a", "a" * 41, "a\n"])
def test_bad_names(name: str) -> None:
    with pytest.raises(ValueError, match="--name"):
        checked_name(name)


def test_a_store_must_outlive_the_machine() -> None:
    good = ["python", "-m", "launch.sweep", "c.py", "--store", "gs://b/c"]
    assert checked_command(good) == tuple(good)
    assert checked_command(["python", "-m", "research.run", "c.py"])
    for words in (["--store", "a"], ["--store"], ["--store=a"], ["-m", "launch.trial", "a", "0"]):
        with pytest.raises(ValueError, match="would go with the machine"):
            checked_command(words)
    with pytest.raises(ValueError, match="say what to run"):
        checked_command([])


@pytest.mark.parametrize("number", [0, -1, float("nan"), float("inf")])
def test_numbers_are_above_zero_and_finite(number: float) -> None:
    checked_numbers(poll=0.1)
    with pytest.raises(ValueError, match="--max-chip-hours must be a number above 0"):
        checked_numbers(poll=1.0, max_chip_hours=number)
