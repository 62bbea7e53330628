"""What a config's sweep becomes: trials by generation, and a store that knows whose it is."""

from pathlib import Path

import pytest

from launch import job
from launch.plan import Sweep
from launch.store import open_store

CONFIG = '''"""A config."""
from launch.plan import Int, Sweep
from research.spec import Experiment, Named

def config():
    return Experiment(name="x", data=None, tracks=Named(), squeeze=Named(), old_chip=None, new_chip=None)

def sweep():
    return Sweep(space={"seed": Int(0, 9)}, objectives={"ms": "min"}, trials=5, generation=2, max_failures=2)

def points():
    return [{"seed": 1}, {"seed": 2, "optim.lr": 0.1}]
'''


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "x.py"
    path.write_text(CONFIG)
    return str(path)


def test_points_are_one_generation_with_the_usual_patience(config: str) -> None:
    made = job.job_of(config, "points", smoke=True)
    assert (made.size, made.generations(), made.smoke) == (2, [range(2)], True)
    assert made.max_failures == Sweep.max_failures
    assert (made.objectives, made.constraints) == ({}, {})


def test_a_planned_sweep_comes_in_generations(config: str) -> None:
    made = job.job_of(config)
    assert made.generations() == [range(2), range(2, 4), range(4, 5)]
    assert (made.max_failures, made.objectives) == (2, {"ms": "min"})
    assert job.job_of(config, trials=3).generations() == [range(2), range(2, 3)]


def test_overrides_are_typed() -> None:
    assert job.overrides({"a.b": 0.1, "c": "x", "d": (1, 2)}) == ["a.b=0.1", "c='x'", "d=(1, 2)"]


def test_a_store_remembers_its_sweep(config: str, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    with pytest.raises(ValueError, match="holds no sweep"):
        job.held_job(store)
    for made in (job.job_of(config, trials=3), job.job_of(config, trials=3)):
        job.claim(store, made)
        assert job.held_job(store) == made
    for other in (job.job_of(config), job.job_of(config, "points"), job.job_of(config, smoke=True, trials=3)):
        with pytest.raises(ValueError, match="another sweep"):
            job.claim(store, other)


def test_a_spec_is_written_once(config: str, tmp_path: Path) -> None:
    store, made = open_store(str(tmp_path / "store")), job.job_of(config, "points")
    job.write_spec(store, made, 1, {"seed": 2})
    job.write_spec(store, made, 1, {"seed": 3})
    assert store.read("trials/00001/spec.json") == {
        "number": 1, "config": config, "overrides": ["seed=2"], "smoke": False, "point": {"seed": 2},
    }  # fmt: skip
