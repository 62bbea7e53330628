"""How a sweep stands, as its driver keeps it."""

from pathlib import Path

import pytest

from launch.job import Job
from launch.plan import Int, Sweep
from launch.store import Store, open_store
from launch.tally import Tally

SWEEP = Sweep(
    space={"seed": Int(0, 9)},
    objectives={"ms": "min", "score": "max"},
    constraints={"kb": 5.0},
    trials=4,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def tallied(store: Store) -> Tally:
    """Trial 0 done, 1 done but too large, 2 given up, 3 running."""
    tally = Tally(Job("x.py", "sweep", SWEEP))
    rows = ({"ms": 2.0, "score": 0.5, "kb": 4.0}, {"ms": 1.0, "score": 0.9, "kb": 6.0})
    for number, row in enumerate(rows):
        store.write(f"trials/{number:05d}/result.json", {"number": number, "rows": [{"ms": 0.0}, row]})
    store.write("trials/00002/failed.json", {"code": 3})
    for number in range(4):
        tally.take(store, number, {"seed": number})
    tally.hear(store, 3, "started")
    return tally


def test_the_view_counts_and_finds_the_best_that_is_allowed(store: Store) -> None:
    view = tallied(store).view()
    assert (view.total, view.done, view.failed, view.running) == (4, 2, 1, (3,))
    assert view.best == {"ms": (2.0, 0), "score": (0.5, 0)}
    assert view.pareto == 1
    assert view.eta_s is None


def test_news_change_it(store: Store) -> None:
    tally = tallied(store)
    tally.hear(store, 3, "retry (-9)")
    assert tally.states[3] == "waiting"
    tally.hear(store, 3, "failed (1)")
    assert (tally.failed, tally.view().running) == (2, ())


def test_planners_are_told_of_failures_as_trials_without_metrics(store: Store) -> None:
    told = tallied(store).results()
    assert [number for number, _, _ in told] == [0, 1, 2, 3]
    assert told[0] == (0, {"seed": 0}, {"ms": 2.0, "score": 0.5, "kb": 4.0})
    assert told[2] == (2, {"seed": 2}, {})


def test_what_runs_is_waiting_in_the_table(store: Store, tmp_path: Path) -> None:
    tallied(store).write(store, drawn=False)
    lines = (tmp_path / "store/trials.csv").read_text().splitlines()
    assert lines == [
        "trial,state,seed,ms,score,kb", "0,done,0,2.0,0.5,4.0", "1,done,1,1.0,0.9,6.0",
        "2,failed,2,,,", "3,waiting,3,,,",
    ]  # fmt: skip
