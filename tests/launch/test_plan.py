"""Plans: the same for every driver, inside their space, and better than chance where they may learn."""

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launch.plan import Choice, Float, Int, Point, Sweep, plan

SPACE = {"optim.lr": Float(1e-4, 1e-1, log=True), "blocks": Int(2, 5), "head": Choice("gap", "heatmap")}
WANTED = {"error_px": "min", "ms": "min"}


def sweep(sampler: str, **changes: Any) -> Sweep:
    return Sweep(**({"space": SPACE, "objectives": WANTED, "trials": 24, "sampler": sampler} | changes))


def measured(point: Point) -> dict[str, float]:
    """A trial with a trade-off: more blocks are slower and better; one learning rate is best."""
    off = (np.log10(point["optim.lr"]) + 2) ** 2
    return {
        "error_px": float(off + 4 / point["blocks"] + (point["head"] == "gap")),
        "ms": float(point["blocks"]),
    }


def played(asked: Sweep) -> list[Point]:
    """All points of a sweep, planned generation by generation."""
    points: list[Point] = []
    for generation in range(-(-asked.trials // asked.generation)):
        known = [(n, point, measured(point)) for n, point in enumerate(points)] if asked.objectives else []
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


def any_order_plans_the_same(sampler: str, chance: Any) -> None:
    """Results shuffled, and with those of this generation and the next among them."""
    asked = sweep(sampler, constraints={"ms": 4.0})
    points = [*plan(asked, 0, []), *plan(sweep("random"), 1, []), *plan(sweep("random"), 2, [])]
    known = [(n, point, measured(point)) for n, point in enumerate(points)]
    mixed = list(known)
    chance.shuffle(mixed)
    assert plan(asked, 1, mixed) == plan(asked, 1, known[:8])


@pytest.mark.parametrize("sampler", ["random", "qmc"])
@settings(max_examples=10)
@given(chance=st.randoms(use_true_random=False))
def test_samplers_do_not_care_in_which_order_trials_ended(sampler: str, chance: Any) -> None:
    any_order_plans_the_same(sampler, chance)


def test_without_optuna_learners_say_what_is_missing() -> None:
    words = "import sys; sys.modules['optuna'] = None; from launch.plan import *; "
    words += f"plan({sweep('tpe')!r}, 0, [])"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last == "ValueError: the sampler 'tpe' needs Optuna: pip install '.[sweep]'"


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
    known = [(n, point, measured(point)) for n, point in enumerate(plan(asked, 0, []))]
    failed = [*known[:3], (3, known[3][1], {"ms": float("nan")}), (4, known[4][1], {})]
    assert plan(asked, 1, failed) == plan(asked, 1, failed)
    assert plan(asked, 1, failed) != plan(asked, 1, known)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_learners_plan_the_same_in_any_process(sampler: str) -> None:
    """Needs Optuna (extra `sweep`)."""
    asked = sweep(sampler)
    known = [(n, point, measured(point)) for n, point in enumerate(played(asked)[:16])]
    words = f"from launch.plan import *; print(plan({asked!r}, 2, {known!r}))"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == repr(plan(asked, 2, known))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
@settings(max_examples=20)
@given(chance=st.randoms(use_true_random=False))
def test_learners_do_not_care_in_which_order_trials_ended(sampler: str, chance: Any) -> None:
    """Needs Optuna (extra `sweep`)."""
    any_order_plans_the_same(sampler, chance)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_learners_run_no_point_twice_while_there_are_others(sampler: str) -> None:
    """Needs Optuna (extra `sweep`)."""
    assert len(set(map(repr, played(sweep(sampler, trials=64))))) == 64
    few = sweep(sampler, space=SPACE | {"optim.lr": Choice(0.1, 0.01)}, trials=20)
    points = played(few)
    assert len(points) == 20
    assert len(set(map(repr, points))) >= 15  # of 16


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_constraints_are_learnt(sampler: str) -> None:
    """Needs Optuna (extra `sweep`)."""
    free, bound = sweep(sampler, trials=64), sweep(sampler, trials=64, constraints={"ms": 3.0})
    late = [[measured(point)["ms"] for point in played(asked)[32:]] for asked in (free, bound)]
    assert np.mean(np.array(late[1]) <= 3) > np.mean(np.array(late[0]) <= 3)
    assert np.mean(np.array(late[1]) <= 3) > 0.6
