"""Recorded hands as a stream: every picture once an epoch, the same bits alone or in a batch, decoded once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.data import recorded as room
from research.data.freihand import prepare_freihand, read_crops
from research.data.passes import order
from research.data.recorded import RecordedHands, examples, held_out, recorded, training
from tests.data.archive import SAMPLES, TESTS, VERSIONS, write_archive, write_npz

PICTURES = SAMPLES * VERSIONS


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the prepared archive."""
    root = tmp_path_factory.mktemp("freihand")
    prepare_freihand(write_archive(root / "archive"), root / "sets")
    return root / "sets"


@pytest.fixture(scope="module")
def spec(sets: Path) -> RecordedHands:
    return recorded("freihand", sets, 32, 3)


def test_stored_crops_show_their_keypoints_with_a_margin(spec: RecordedHands) -> None:
    stored = training(spec)
    assert stored.picture.shape == (PICTURES, 48, 48)
    assert stored.picture.dtype == np.uint8
    assert isinstance(stored.picture, np.memmap)
    assert np.ptp(stored.keypoints, axis=1).max(axis=1) == pytest.approx(0.45, abs=1e-4)
    wanted = read_crops(spec.path, "training", 48, fill=0.45)
    np.testing.assert_allclose(stored.picture / 255.0, wanted.image, atol=1e-6)


def test_pictures_are_decoded_once(spec: RecordedHands, monkeypatch: pytest.MonkeyPatch) -> None:
    first = training(spec)
    training.cache_clear()
    monkeypatch.setattr(room, "read_crops", None)
    again = training(spec)
    np.testing.assert_array_equal(first.picture, again.picture)
    assert not list(Path(spec.path).glob(".decoding*"))


def test_an_interrupted_decoding_leaves_nothing(spec: RecordedHands, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*words: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "read_crops", stopped)
    with pytest.raises(KeyboardInterrupt):
        training(replace(spec, size_px=40))
    assert not [path for path in Path(spec.path).iterdir() if "60px" in path.name or path.name[0] == "."]


def test_a_stream_passes_epochs_in_their_order(spec: RecordedHands) -> None:
    still = replace(spec.augment, fill=(0.5, 0.5), shift=0.0, roll_deg=0.0, mirror=0.0, light=0.0, noise=0.0)
    at = examples(replace(spec, augment=still))
    seen = np.asarray(at(4, np.arange(2 * PICTURES))["keypoints"])
    stored = training(spec).keypoints
    rows = np.concatenate([order(4, epoch, PICTURES) for epoch in (0, 1)])
    boxed = stored - (stored.min(1, keepdims=True) + stored.max(1, keepdims=True)) / 2
    np.testing.assert_allclose(seen, (boxed * 0.5 / 0.45 + 0.5)[rows], atol=1e-5)


def test_an_example_is_the_same_alone(spec: RecordedHands) -> None:
    at = examples(spec)
    whole = at(7, np.arange(20, 28))
    alone = at(7, np.asarray([25]))
    assert whole["image"].shape == (8, 32, 32)
    np.testing.assert_array_equal(whole["image"][5], alone["image"][0])
    np.testing.assert_array_equal(whole["keypoints"][5], alone["keypoints"][0])
    other = at(8, np.asarray([25]))
    assert (np.asarray(other["image"]) != np.asarray(alone["image"])).any()


def test_the_test_set_is_the_evaluation_split_as_it_is(spec: RecordedHands) -> None:
    images, keypoints = held_out(spec)
    wanted = read_crops(spec.path, "evaluation", 32, range(3))
    np.testing.assert_array_equal(images, wanted.image)
    np.testing.assert_array_equal(keypoints, wanted.keypoints)
    assert len(held_out(replace(spec, test_images=99))[0]) == TESTS


def test_your_own_file_keeps_a_fifth_apart(tmp_path: Path) -> None:
    spec = recorded(f"npz:{write_npz(tmp_path / 'own.npz')}", tmp_path, 32, 99)
    images, keypoints = held_out(spec)
    stored = training(spec)
    assert len(images) == len(keypoints) == 3
    assert len(stored.picture) == 12
    with np.load(spec.path) as file:
        np.testing.assert_array_equal(images, file["image"][12:])
        np.testing.assert_allclose(stored.keypoints, file["keypoints"][:12])
    assert examples(spec)(0, np.arange(5))["image"].shape == (5, 32, 32)
    write_npz(tmp_path / "own.npz", 14)
    training.cache_clear()
    with pytest.raises(ValueError, match=r"own\.npz changed since"):
        training(spec)


def test_what_cannot_be_asked_for(sets: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--data 'frei' must be freihand or npz:FILE"):
        recorded("frei", sets, 32, 3)
    with pytest.raises(
        FileNotFoundError, match=r"no FreiHAND prepared in .*research\.data\.prepare freihand"
    ):
        recorded("freihand", tmp_path, 32, 3)
    with pytest.raises(FileNotFoundError, match="no such file"):
        recorded("npz:none.npz", sets, 32, 3)
    for name in ("a", "b"):
        (tmp_path / "freihand" / name / "2.0.0").mkdir(parents=True)
        (tmp_path / "freihand" / name / "2.0.0" / "dataset_info.json").touch()
    with pytest.raises(ValueError, match="2 prepared FreiHAND sets"):
        recorded("freihand", tmp_path, 32, 3)
    few = recorded(f"npz:{write_npz(tmp_path / 'few.npz', 4)}", sets, 32, 3)
    with pytest.raises(ValueError, match="4 examples; training needs at least 5"):
        training(few)
    with pytest.raises(ValueError, match="no recorded data 'photos'"):
        RecordedHands("photos", "")
    with pytest.raises(ValueError, match="size_px=8 must be at least 16"):
        RecordedHands("npz", "", 8)
