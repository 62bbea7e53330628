"""Two devices compute what one computes, and a checkpoint of two opens on one."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from research.data.synthetic import batch_at
from research.train import loop
from research.train.arms import Arm, full
from research.train.fit import fit
from tests.smoke import Finished, largest_difference, smoke

EQUAL_TO = 1e-5
# A small learning rate: Adam turns rounding noise in tiny gradients into steps of full size.
GENTLE = "optim.lr=1e-5"


def test_there_are_two_devices() -> None:
    assert jax.device_count() == 2


def test_two_devices_train_like_one(tmp_path: Path) -> None:
    exp = smoke(GENTLE)
    one = fit(exp, Arm("v1"), tmp_path / "one", devices=1)
    two = fit(exp, Arm("v1"), tmp_path / "two", devices=2)
    assert len(jax.tree.leaves(two.raw)[0].sharding.device_set) == 2
    assert largest_difference((one.raw, one.norm_stats), (two.raw, two.norm_stats)) <= EQUAL_TO


def test_a_checkpoint_of_two_devices_opens_on_one_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exp = smoke(GENTLE)
    whole = fit(exp, Arm("v1"), tmp_path / "whole", devices=1)
    real = loop.batches

    def breaking(data: Any, batch: int) -> Any:
        def stream(seed: int, step: int) -> dict[str, jax.Array]:
            if step == 3:
                raise KeyboardInterrupt
            return real(data, batch)(seed, step)

        return stream

    with monkeypatch.context() as patch:
        patch.setattr(loop, "batches", breaking)
        with pytest.raises(KeyboardInterrupt):
            fit(exp, Arm("v1"), tmp_path / "broken", devices=2)
    assert sorted(path.name for path in tmp_path.glob("broken/stages/*/steps/*"))[-1] == "3"
    on_one = fit(exp, Arm("v1"), tmp_path / "broken", devices=1)
    assert all(len(leaf.sharding.device_set) == 1 for leaf in jax.tree.leaves(on_one.raw))
    assert largest_difference((on_one.raw, on_one.norm_stats), (whole.raw, whole.norm_stats)) <= EQUAL_TO


def test_an_outcome_opens_on_any_number_of_devices(finished: Finished) -> None:
    arm = full(finished.exp)
    one, two = (fit(finished.exp, arm, finished.workdir, devices=n) for n in (1, 2))
    assert largest_difference(one.params, two.params) == 0.0
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(two.params)} == {2}


def test_a_batch_that_does_not_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not split over 2 devices"):
        fit(smoke("optim.batch=7"), Arm("v1"), tmp_path, devices=2)


def test_the_stream_is_indexed_by_step_alone() -> None:
    """Any number of devices or hosts draws the same images: a batch is made of the examples of its indices."""
    spec = smoke().data
    large, small = batch_at(spec, 0, 1, 8), batch_at(spec, 0, 3, 4)
    np.testing.assert_array_equal(np.asarray(large["image"][4:]), np.asarray(small["image"]))
