"""Trials side by side are the trials one by one; what they share is drawn once; what does not split is refused."""

from typing import Any

import jax
import numpy as np
import pytest

from research.train.mesh import data_mesh, place, split_batch
from research.train.population import check_trials, population, side_by_side, stack, unstack
from tests.smoke import largest_difference, same_bits
from tests.train.test_dispatch import EXP, Trial, draw, rendered, step_by_step, trial

HALF = "optim.lr=5e-3"


def stacked(trials: list[Trial]) -> list[Any]:
    """Hyper, frozen and state of the trials, each with a leading axis of trials."""
    return [stack([each[i] for each in trials]) for i in (1, 2, 3)]


def in_one_scan(trials: list[Trial], steps: int, one_seed: bool) -> list[Any]:
    """`side_by_side` of trials on the table's stream from step 2, in float64: `(state, terms)` of each."""
    with jax.enable_x64(True):
        advance = jax.jit(side_by_side(trials[0][0], draw, steps, one_seed))
        return unstack(advance(*stacked(trials), 2))


def test_trials_side_by_side_are_the_trials_one_by_one() -> None:
    trials = [trial(), trial("seed=1", HALF)]
    assert trials[0][0] == trials[1][0]  # one program
    singles = [step_by_step(each, 2, 2) for each in trials]
    for (expected, last), (state, terms) in zip(singles, in_one_scan(trials, 2, False), strict=True):
        assert largest_difference(state, expected) < 1e-9
        assert terms["loss"].shape == (2,)
        assert terms["loss"][1] == pytest.approx(last["loss"], rel=1e-9)
    assert largest_difference(singles[0], singles[1]) > 1e-2


def test_trials_of_one_seed_share_their_images() -> None:
    trials = [trial(), trial(HALF)]
    expected = [step_by_step(each, 1, 2) for each in trials]
    for (state, terms), (alone, last) in zip(in_one_scan(trials, 1, True), expected, strict=True):
        assert largest_difference(state, alone) < 1e-9
        assert terms["loss"][0] == pytest.approx(last["loss"], rel=1e-9)
    assert largest_difference(expected[0][0].params, expected[1][0].params) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("one_seed", "scan"), [(False, True), (True, True), (False, False)])
def test_rendering_trials_on_two_devices_are_the_trials_one_by_one(one_seed: bool, scan: bool) -> None:
    trials = [
        trial(f"seed={0 if one_seed else i}", f"optim.lr={(i + 1) * 1e-3}", links=("sparse", "distill"))
        for i in range(4)
    ]
    mesh = data_mesh(2)
    with jax.enable_x64(True):
        advance = population.__wrapped__(
            trials[0][0], mesh, EXP.data, EXP.optim.batch, 2, one_seed=one_seed, scan=scan
        )
        placed = [place(tree, split_batch(mesh)) for tree in stacked(trials)]
        ends = unstack(advance(*placed, 3))
    for each, one in zip(trials, ends, strict=True):
        assert largest_difference(rendered(each, 1, 2, False), one) < 1e-5


def test_stacking_can_be_undone() -> None:
    trees = [{"a": np.full(3, float(i), np.float32), "b": (np.asarray(i, np.int32),)} for i in range(4)]
    tree = stack(trees)
    assert tree["a"].shape == (4, 3)
    assert all(same_bits(one, other) for one, other in zip(unstack(tree), trees, strict=True))


def test_trials_that_do_not_split_are_refused() -> None:
    check_trials(data_mesh(2), 4)
    check_trials(data_mesh(1), 3)
    for trials in (3, 0):
        with pytest.raises(
            ValueError, match=f"{trials} trials do not split over 2 devices: choose a multiple"
        ):
            check_trials(data_mesh(2), trials)
