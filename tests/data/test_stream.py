"""The one door to data: renders and recorded hands through the same calls."""

from pathlib import Path

import numpy as np
import pytest

from research.data.recorded import recorded
from research.data.rendered_hands import prepare_test_set, read_test_set
from research.data.stream import batches, held_out_set, own_batches
from research.data.synthetic import RenderedHands, batch_at
from tests.data.archive import write_npz

RENDERS = RenderedHands(size_px=32, test_images=5)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> object:
    file = write_npz(tmp_path_factory.mktemp("own") / "own.npz")
    return recorded(f"npz:{file}", "", 32, 5)


def test_renders_come_as_they_are_drawn(tmp_path: Path) -> None:
    found, wanted = batches(RENDERS, 32)(3, 1), batch_at(RENDERS, 3, 1, 32)
    for name in ("image", "keypoints"):
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-6)
    images, keypoints = held_out_set(RENDERS, 7, tmp_path)
    wanted_images, wanted_keypoints = read_test_set(prepare_test_set(RENDERS, 7, tmp_path))
    np.testing.assert_array_equal(images, wanted_images)
    np.testing.assert_array_equal(keypoints, wanted_keypoints)


def test_own_rows_are_rows_of_the_batch(own: object) -> None:
    whole = batches(own, 8)(3, 2)
    mine = own_batches(own, 8, (5, 1))(3, 2)
    for name in ("image", "keypoints"):
        np.testing.assert_array_equal(np.asarray(whole[name])[[5, 1]], mine[name])


def test_steps_of_a_stream_follow_each_other(own: object) -> None:
    long, short = batches(own, 8), batches(own, 4)
    joined = np.concatenate([short(0, 2)["image"], short(0, 3)["image"]])
    np.testing.assert_array_equal(long(0, 1)["image"], joined)
    images, _ = held_out_set(own, 0, "nowhere")
    assert images.shape == (3, 32, 32)
