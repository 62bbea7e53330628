"""A teacher's features: computed once, whole, in order; another renderer, seed or teacher is another folder."""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from research.data import taught as room
from research.data.stream import batches, untaught
from research.data.synthetic import RenderedHands, examples_at
from research.data.taught import TaughtHands, examples, features, folder_of

HANDS = RenderedHands(size_px=32, test_images=5)
SPEC = TaughtHands(HANDS, "none", images=24, taps=("t",))


def test_a_batch_carries_what_the_teacher_saw_in_its_images() -> None:
    batch = batches(SPEC, 8)(0, 4)  # rows 32..39 are renders 8..15 again
    plain = examples_at(HANDS, 0, jnp.arange(8, 16, dtype=jnp.uint32))
    np.testing.assert_allclose(batch["image"], plain["image"], atol=1e-6)
    np.testing.assert_allclose(batch["taught/keypoints"], plain["keypoints"], atol=1e-3)
    np.testing.assert_allclose(batch["taught/energy/t"], np.square(plain["image"]), atol=1e-3)
    alone = examples(SPEC)(0, np.asarray([35]))
    np.testing.assert_array_equal(alone["image"][0], batch["image"][3])
    assert set(batch) == {"image", "keypoints", "taught/keypoints", "taught/energy/t", "taught/mean/t"}


def test_features_are_kept_in_half_precision() -> None:
    found = features(SPEC, 0)
    assert {array.dtype for array in found.values()} == {np.dtype(np.float16)}
    assert {len(array) for array in found.values()} == {24}


def test_the_folder_tells_renderer_teacher_seed_and_taps(monkeypatch: pytest.MonkeyPatch) -> None:
    full = replace(SPEC, network="full")
    other = [replace(full, network="lite"), replace(full, taps=("u",)), replace(full, images=25)]
    names = {folder_of(spec, 0) for spec in (full, *other)} | {folder_of(full, 1)}
    assert len(names) == 5
    assert folder_of(full, 0) in names
    moved = lambda *words: {k: v * 0.5 for k, v in examples_at(*words).items()}  # noqa: E731
    monkeypatch.setattr(room, "examples_at", moved)
    assert folder_of(full, 0) not in names


def test_a_teacher_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    lost = replace(SPEC, network="full", peers=str(tmp_path), cache=str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match=r"run python -m research\.data\.prepare mediapipe"):
        features(lost, 0)
    with pytest.raises(ValueError, match="no MediaPipe network 'huge': choose full or lite"):
        replace(SPEC, network="huge")
    with pytest.raises(ValueError, match="images must be at least 1"):
        replace(SPEC, images=0)


def test_it_stands_for_its_renders() -> None:
    assert (SPEC.size_px, SPEC.test_images) == (32, 5)
    assert untaught(SPEC) == HANDS
    assert untaught(HANDS) == HANDS
    assert SPEC.smoke().network == "none"
