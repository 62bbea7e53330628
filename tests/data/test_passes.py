"""Passes over a fixed set: every picture once an epoch, alone as in any batch, those of each seed."""

import numpy as np

from research.data.augment import Augment
from research.data.passes import Stored, order, passes

STILL = Augment((0.5, 0.5), 0.0, 0.0, 0.0, 0.0, 0.0)


def pictures(seed: int) -> Stored:
    """Seven flat pictures whose grey is 10 times their number and the seed."""
    points = np.random.default_rng(0).uniform(0.3, 0.7, (7, 21, 2)).astype(np.float32)
    return Stored(np.stack([np.full((24, 24), 10 * n + seed, np.uint8) for n in range(7)]), points)


def test_an_epoch_passes_every_picture_once() -> None:
    for seed, epoch in ((0, 0), (0, 1), (5, 0)):
        assert sorted(order(seed, epoch, 50)) == list(range(50))
    assert (order(0, 0, 50) != order(0, 1, 50)).any()
    assert (order(0, 0, 50) != order(1, 0, 50)).any()
    np.testing.assert_array_equal(order(3, 2, 50), order(3, 2, 50))


def test_pictures_come_in_the_order_of_their_epoch() -> None:
    seen = np.asarray(passes(pictures, STILL, 16)(3, np.arange(21))["image"])[:, 8, 8] * 255
    rows = np.concatenate([order(3, epoch, 7) for epoch in range(3)])
    np.testing.assert_allclose(seen, 10 * rows + 3, atol=0.1)


def test_an_example_is_the_same_alone() -> None:
    at = passes(pictures, Augment(), 16)
    whole, alone = at(1, np.arange(5, 12)), at(1, np.asarray([9]))
    np.testing.assert_array_equal(whole["image"][4], alone["image"][0])
    np.testing.assert_array_equal(whole["keypoints"][4], alone["keypoints"][0])
