"""Whose fault an end was, how often it may happen, and what the next driver is told of it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from launch import drive
from launch.executors import Pack
from launch.store import Store, open_store
from launch.trial import FULL

NUMBERS = (0, 1, 2)


class Scripted:
    """An executor whose trials end as told: numbers to the codes of one attempt after another; 0 writes a result."""

    def __init__(self, store: Store, slots: int = 2, **codes: Sequence[int]) -> None:
        self.store, self.slots, self.running, self.submitted = store, slots, [], []
        self.codes = {int(name[1:]): list(script) for name, script in codes.items()}

    def submit(self, pack: Pack) -> None:
        assert len(self.running) < self.slots
        self.submitted.append(pack)
        self.running.append(pack)

    def wait(self, timeout_s: float) -> tuple[Pack, int] | None:
        pack = self.running.pop()
        scripts = [self.codes.get(number, [0]) for number in pack]
        code = next(filter(None, (script.pop(0) if len(script) > 1 else script[0] for script in scripts)), 0)
        for number in pack if code == 0 else ():
            self.store.write(f"trials/{number:05d}/result.json", {"number": number, "rows": [{}]})
        return pack, code

    def drop(self, pack: Pack) -> None:
        self.running.remove(pack)

    def stop(self) -> None:
        self.running.clear()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def driven(
    store: Store,
    executor: Scripted,
    max_failures: int = 3,
    packed: Callable[[Sequence[int]], list[Pack]] = drive.alone,
) -> list[tuple[int, str]]:
    """What was heard, but for the starts."""
    news: list[tuple[int, str]] = []
    drive.run_trials(store, NUMBERS, executor, max_failures, lambda *what: news.append(what), packed)
    return [(number, what) for number, what in news if what != "started"]


def test_every_trial_is_run_once(store: Store) -> None:
    executor = Scripted(store)
    assert sorted(driven(store, executor)) == [(n, "done") for n in NUMBERS]
    assert sorted(executor.submitted) == [(0,), (1,), (2,)]
    assert driven(store, Scripted(store)) == []


def test_faults_of_the_machine_are_tried_again(store: Store) -> None:
    news = driven(store, Scripted(store, t1=[-9, 143, 0]))
    assert [what for number, what in news if number == 1] == ["retry (-9)", "retry (143)", "done"]


def test_faults_of_a_trial_are_counted_and_the_others_finish(store: Store, tmp_path: Path) -> None:
    log = tmp_path / "store/trials/00001/run/log.txt"
    log.parent.mkdir(parents=True)
    log.write_text("x" * 5000 + "error: it broke\n")
    news = driven(store, Scripted(store, t1=[3]))
    assert [what for number, what in news if number == 1] == ["retry (3)", "retry (3)", "failed (3)"]
    assert {(0, "done"), (2, "done")} <= set(news)
    failed = store.read("trials/00001/failed.json")
    assert failed["code"] == 3
    assert failed["log"].endswith("x" * 100 + "error: it broke\n")
    assert len(failed["log"]) == drive.TAIL
    assert drive.state_of(store, 1) == "failed"


def test_exit_0_without_a_result_is_the_trials_fault(store: Store) -> None:
    assert drive.judge(store, 0, 0, max_failures=1) == "failed (0)"


def test_faults_are_counted_across_drivers(store: Store) -> None:
    assert drive.judge(store, 0, 1, max_failures=2) == "retry (1)"
    assert drive.judge(store, 0, 1, max_failures=2) == "failed (1)"


def test_the_machine_is_blamed_no_longer_when_no_newer_checkpoint_appears(store: Store) -> None:
    news = driven(store, Scripted(store, t0=[-9]))
    assert [what for number, what in news if number == 0].count("retry (-9)") == drive.STALLED - 1
    assert (0, "failed (-9)") in news


def test_a_newer_checkpoint_starts_the_count_again(store: Store) -> None:
    for attempt in range(3 * drive.STALLED):
        store.write("trials/00000/attempt.json", {"progress": attempt // 5})
        assert drive.judge(store, 0, -9, max_failures=1) == "retry (-9)"


def test_forgiven_trials_are_tried_again(store: Store) -> None:
    driven(store, Scripted(store, t1=[3]))
    drive.forgive(store, 1)
    assert drive.state_of(store, 1) == "waiting"
    assert driven(store, Scripted(store, t1=[3, 0])) == [(1, "retry (3)"), (1, "done")]


def together(numbers: Sequence[int]) -> list[Pack]:
    return [tuple(numbers)] if numbers else []


def test_a_pack_is_one_process_and_a_lost_machine_runs_it_again(store: Store) -> None:
    executor = Scripted(store, t1=[-9, 0])
    news = driven(store, executor, packed=together)
    assert executor.submitted == [NUMBERS, NUMBERS]
    assert news == [(n, "retry (-9)") for n in NUMBERS] + [(n, "done") for n in NUMBERS]


def test_a_pack_that_fails_is_taken_apart_and_only_the_guilty_pays(store: Store) -> None:
    executor = Scripted(store, slots=1, t1=[3])
    news = driven(store, executor, packed=together)
    assert executor.submitted == [NUMBERS, (0,), (1,), (1,), (1,), (2,)]
    assert news[:3] == [(n, "retry (3)") for n in NUMBERS]
    assert {(0, "done"), (1, "failed (3)"), (2, "done")} <= set(news[3:])
    assert store.read("trials/00000/failures.json") is None


def test_a_result_whose_news_were_lost_counts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "LOOK_S", 0.0)

    class Silent(Scripted):
        def wait(self, timeout_s: float) -> tuple[Pack, int] | None:
            for (number,) in self.running:
                self.store.write(f"trials/{number:05d}/result.json", {"number": number, "rows": [{}]})

    assert sorted(driven(store, Silent(store))) == [(n, "done") for n in NUMBERS]


def test_a_cancel_is_heard(store: Store) -> None:
    store.write("cancel.json", {"cancel": True})
    with pytest.raises(drive.Cancelled):
        driven(store, Scripted(store))


def test_a_full_disk_stops_the_driver_and_blames_no_trial(store: Store) -> None:
    with pytest.raises(OSError, match="No space left"):
        driven(store, Scripted(store, t0=[FULL]))
    assert store.read("trials/00000/failures.json") is None
