"""Plans: the same for every driver, inside their space, and better than chance where they may learn."""

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from launch.plan import Choice, Float, Int, Point, Sweep, plan

SPACE = {"optim.lr": Float(1e-4, 1e-1, log=True), "blocks": Int(2, 5), "head": Choice("gap", "heatmap")}
WANTED = {"error_px": "min", "ms": "min"}


def sweep(sampler: str, **changes: Any) -> Sweep:
    return Sweep(**({"space": SPACE, "objectives": WANTED, "trials": 24, "sampler": sampler} | changes))


def measured(point: Point) -> dict[str, float]:
    """A trial with a trade-off: more blocks are slower and better; one learning rate is best."""
    off = (np.log10(point["optim.lr"]) + 2) ** 2
    return {"error_px": off + 4 / point["blocks"] + (point["head"] == "gap"), "ms": float(point["blocks"])}


def played(asked: Sweep) -> list[Point]:
    """All points of a sweep, planned generation by generation."""
    points: list[Point] = []
    for generation in range(-(-asked.trials // asked.generation)):
        known = [(point, measured(point)) for point in points] if asked.objectives else []
        points += plan(asked, generation, known)
    return points


def test_a_grid_is_the_whole_product() -> None:
    space = {"blocks": Int(2, 4), "head": Choice("gap", "heatmap")}
    asked = Sweep(space=space, objectives={}, trials=0, sampler="grid", generation=4)
    assert asked.trials == 6
    met = [tuple(point.values()) for point in played(asked)]
    assert met == list(itertools.product((2, 3, 4), ("gap", "heatmap")))


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_points_lie_in_their_space_and_do_not_repeat(sampler: str) -> None:
    points = played(sweep(sampler, trials=20, generation=7))
    assert len(points) == 20
    for point in points:
        assert list(point) == list(SPACE)
        assert 1e-4 <= point["optim.lr"] <= 1e-1
        assert point["blocks"] in range(2, 6)
        assert point["head"] in ("gap", "heatmap")
    assert len({point["optim.lr"] for point in points}) == 20


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_how_many_are_planned_at_once_does_not_matter(sampler: str) -> None:
    assert played(sweep(sampler, generation=5)) == played(sweep(sampler, generation=24))
    assert played(sweep(sampler)) != played(sweep(sampler, seed=1))


def test_qmc_fills_the_space_evenly() -> None:
    shares = sorted(point["x"] for point in played(Sweep({"x": Float(0, 1)}, {}, 64, sampler="qmc")))
    assert np.diff([0, *shares, 1]).max() < 3 / 64


@pytest.mark.parametrize("asked", [sweep("random"), sweep("qmc")])
def test_another_process_plans_the_same(asked: Sweep) -> None:
    words = f"from launch.plan import *; print(plan({asked!r}, 1, []))"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == repr(plan(asked, 1, []))


def test_what_cannot_be_swept_is_refused() -> None:
    for changes, words in (
        ({"space": {}}, "space has no field"),
        ({"space": {"x": (0, 1)}}, r"space\['x'\] must be Float, Int or Choice"),
        ({"objectives": {"ms": "smallest"}}, r"objectives\['ms'\] must be 'min' or 'max'"),
        ({"sampler": "bayes"}, "sampler must be one of grid, random, qmc, tpe, nsga2"),
        ({"sampler": "tpe", "objectives": {}}, "'tpe' needs objectives"),
        ({"trials": 0}, "trials is 0, but a sweep needs at least 1"),
        ({"sampler": "grid"}, "a grid cannot list"),
        ({"sampler": "grid", "space": {"x": Int(0, 3)}, "trials": 5}, "the grid has 4 points"),
        ({"generation": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=words):
            sweep(**({"sampler": "random"} | changes))
    with pytest.raises(ValueError, match="generation 3 lies behind the 24 trials"):
        plan(sweep("random"), 3, [])


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_learners_are_pure_and_better_than_chance(sampler: str) -> None:
    """Needs Optuna (extra `sweep`): python -m pytest -m slow tests/launch/test_plan.py"""

    def best(asked: Sweep) -> float:
        return float(np.mean(sorted(sum(measured(point).values()) for point in played(asked))[:5]))

    asked = sweep(sampler, trials=64)
    assert played(asked) == played(asked)
    chance = [best(sweep("random", trials=64, seed=seed)) for seed in range(3)]
    learnt = [best(sweep(sampler, trials=64, seed=seed)) for seed in range(3)]
    assert np.mean(learnt) < np.mean(chance)
    known = [(point, measured(point)) for point in plan(asked, 0, [])]
    broken = [*known[:3], (known[3][0], {"ms": float("nan")})]
    assert plan(asked, 1, broken) == plan(asked, 1, broken)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_constraints_are_learnt(sampler: str) -> None:
    """Needs Optuna (extra `sweep`)."""
    free, bound = sweep(sampler, trials=64), sweep(sampler, trials=64, constraints={"ms": 3.0})
    late = [[measured(point)["ms"] for point in played(asked)[32:]] for asked in (free, bound)]
    assert np.mean(np.array(late[1]) <= 3) > np.mean(np.array(late[0]) <= 3)
    assert np.mean(np.array(late[1]) <= 3) > 0.6
