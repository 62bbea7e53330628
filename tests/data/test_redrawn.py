"""A fixed set of renders: drawn once, those of the training stream, wider than a crop, varied anew in each pass."""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from research.data import redrawn as room
from research.data.augment import Augment
from research.data.passes import order
from research.data.redrawn import RedrawnHands, examples, folder_of, renders
from research.data.scene import Look
from research.data.stream import batches, drawn, held_out_set, untaught
from research.data.synthetic import RenderedHands, examples_at

HANDS = RenderedHands(size_px=32, test_images=5)
STILL = Augment((0.5, 0.5), 0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> RedrawnHands:
    return RedrawnHands(HANDS, 70, STILL, str(tmp_path_factory.mktemp("renders")))


def test_the_set_is_the_start_of_the_training_stream(spec: RedrawnHands) -> None:
    stored = renders(spec, 3)
    wanted = examples_at(spec.wide(), 3, jnp.arange(70, dtype=jnp.uint32))
    assert stored.picture.shape == (70, 48, 48)
    np.testing.assert_array_equal(stored.picture, np.round(np.asarray(wanted["image"]) * 255.0).astype(np.uint8))
    np.testing.assert_array_equal(stored.keypoints, wanted["keypoints"])
    assert np.ptp(stored.keypoints, axis=1).max(axis=1) == pytest.approx(0.45, abs=1e-3)


def test_the_set_is_drawn_once(spec: RedrawnHands, monkeypatch: pytest.MonkeyPatch) -> None:
    first = renders(spec, 3)
    monkeypatch.setattr(room, "examples_at", None)
    np.testing.assert_array_equal(renders(spec, 3).picture, first.picture)
    with pytest.raises(TypeError):
        renders(spec, 4)
    part = next(folder_of(spec, 3).iterdir())
    part.write_bytes(part.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"00000000\.npz is damaged .*: delete it"):
        renders(spec, 3)
    part.unlink()


def test_the_folder_tells_spec_and_seed(spec: RedrawnHands) -> None:
    others = [
        replace(spec, images=71),
        replace(spec, hands=replace(HANDS, size_px=40)),
        replace(spec, hands=replace(HANDS, look=Look(wild=1.0))),
    ]
    folders = {folder_of(spec, 0), folder_of(spec, 1), *(folder_of(other, 0) for other in others)}
    assert len(folders) == 5
    assert folder_of(replace(spec, augment=Augment()), 0) == folder_of(spec, 0)
    assert folder_of(replace(spec, hands=replace(HANDS, test_images=9)), 0) == folder_of(spec, 0)


def test_each_pass_shows_every_hand_in_an_order_of_its_own(spec: RedrawnHands) -> None:
    seen = np.asarray(examples(spec)(3, np.arange(140))["keypoints"])
    stored = renders(spec, 3).keypoints
    middle = (stored.min(1, keepdims=True) + stored.max(1, keepdims=True)) / 2
    wanted = (stored - middle) * 0.5 / np.ptp(stored, axis=1).max(axis=1)[:, None, None] + 0.5
    np.testing.assert_allclose(seen[:70], wanted[order(3, 0, 70)], atol=1e-5)
    np.testing.assert_allclose(seen[70:], wanted[order(3, 1, 70)], atol=1e-5)


def test_passes_vary_and_tests_do_not(spec: RedrawnHands, tmp_path: Path) -> None:
    vary = replace(spec, augment=Augment())
    assert not drawn(vary)
    stream = batches(vary, 35)
    first, again = stream(3, 0), stream(3, 2)
    same = [int(np.flatnonzero(order(3, 1, 70) == row)[0]) for row in order(3, 0, 70)[:35]]
    late = [(n, place) for n, place in enumerate(same) if place < 35]
    assert late
    for n, place in late:
        assert np.abs(np.asarray(first["keypoints"][n]) - np.asarray(again["keypoints"][place])).max() > 1e-4
    assert first["image"].shape == (35, 32, 32)
    images, keypoints = held_out_set(vary, 3, tmp_path)
    plain, points = held_out_set(HANDS, 3, tmp_path)
    np.testing.assert_array_equal(images, plain)
    np.testing.assert_array_equal(keypoints, points)


def test_images_to_calibrate_with_need_no_large_set(spec: RedrawnHands) -> None:
    few = untaught(replace(spec, images=10**6))
    assert few.images <= 1000
    assert few.cache == ""
    assert replace(few, images=10**6, cache=spec.cache) == replace(spec, images=10**6)


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="images must be at least 1, got 0"):
        RedrawnHands(HANDS, 0)
    shrunk = RedrawnHands(HANDS, 9999).smoke()
    assert shrunk.images < 100
    assert shrunk.cache == ""  # leaves nothing behind
    assert renders(shrunk, 0).picture.shape == (shrunk.images, 48, 48)
