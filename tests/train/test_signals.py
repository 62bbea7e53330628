"""Signals that arrive while something is written wait for its end, and then do what they always did."""

import os
import signal
import threading

import pytest

from research.train.signals import HELD, held, interrupt, noted, noting


def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    done: list[str] = []

    def write() -> None:
        with held():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("written")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert done == ["written"]


def test_the_first_of_many_is_delivered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: seen.append(number)) for number in HELD}
    try:
        with held():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), number)
            assert seen == []
        assert seen == [signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_handlers_are_back_after_an_error() -> None:
    before = [signal.getsignal(number) for number in HELD]
    with pytest.raises(ZeroDivisionError), held():
        _ = 1 / 0
    assert [signal.getsignal(number) for number in HELD] == before


def test_another_thread_just_runs() -> None:
    done: list[str] = []

    def write() -> None:
        with held():
            done.append("written")

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert done == ["written"]


def test_with_several_processes_signals_are_only_noted() -> None:
    before = [signal.getsignal(number) for number in HELD]
    with noting():
        assert noted() == 0
        with noting():  # the outer one notes
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert noted() == signal.SIGTERM
        with held():
            os.kill(os.getpid(), signal.SIGINT)
        assert noted() == signal.SIGTERM
    assert noted() == 0
    assert [signal.getsignal(number) for number in HELD] == before


def test_a_signal_that_was_held_is_noted_afterwards() -> None:
    with noting():
        with held():
            os.kill(os.getpid(), signal.SIGTERM)
        assert noted() == signal.SIGTERM


def test_only_termination_has_an_argument() -> None:
    assert interrupt(signal.SIGTERM).args
    assert not interrupt(signal.SIGINT).args
