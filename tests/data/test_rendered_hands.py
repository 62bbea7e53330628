"""The prepared test set: written once, whole or not at all, read back exactly, clear about damage."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from research.data import rendered_hands
from research.data.rendered_hands import prepare_test_set, read_test_set
from research.data.synthetic import TEST_STREAM, RenderedHands, examples_at

SPEC = RenderedHands(size_px=32, test_images=5)
SEED = 7


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    """Renders 32 examples a call, the shape that the tests of the stream compile too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendered_hands, "_BATCH", 32)
        yield


@pytest.fixture
def prepared(tmp_path):
    return prepare_test_set(SPEC, SEED, tmp_path)


def record(folder):
    (file,) = folder.glob("*array_record*")
    return file


def test_round_trip_is_the_test_stream_in_8_bits(prepared, capsys):
    images, keypoints = read_test_set(prepared)
    drawn = examples_at(SPEC, SEED, jnp.arange(32, dtype=jnp.uint32), TEST_STREAM)
    grey = np.round(np.asarray(drawn["image"])[:5] * 255).astype(np.uint8)
    np.testing.assert_array_equal(images, grey.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(keypoints, np.asarray(drawn["keypoints"])[:5])
    assert images.dtype == keypoints.dtype == np.float32
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")


def test_preparing_again_touches_nothing(prepared, tmp_path, monkeypatch):
    before = {file.name: file.stat().st_mtime_ns for file in prepared.iterdir()}
    monkeypatch.setattr(rendered_hands, "examples_at", None)
    assert prepare_test_set(SPEC, SEED, tmp_path) == prepared
    assert {file.name: file.stat().st_mtime_ns for file in prepared.iterdir()} == before


def test_another_spec_or_seed_is_another_folder(prepared, tmp_path):
    assert prepare_test_set(SPEC, SEED + 1, tmp_path) != prepared
    assert prepare_test_set(RenderedHands(size_px=32, test_images=4), SEED, tmp_path) != prepared
    images, _ = read_test_set(prepared)
    assert len(images) == 5


def test_an_interrupted_preparation_leaves_nothing_and_is_redone(tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stopping(image):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(rendered_hands, "_png", stopping)
        with pytest.raises(Stop):
            prepare_test_set(SPEC, SEED, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list(tmp_path.glob(".preparing*")) == []
    images, _ = read_test_set(prepare_test_set(SPEC, SEED, tmp_path))
    assert len(images) == 5


def test_a_folder_without_its_description_is_redone(prepared, tmp_path):
    (prepared / "dataset_info.json").unlink()
    with pytest.raises(FileNotFoundError, match="run prepare_test_set again"):
        read_test_set(prepared)
    assert prepare_test_set(SPEC, SEED, tmp_path) == prepared
    assert len(read_test_set(prepared)[0]) == 5


@pytest.mark.parametrize("kept", [0, 100, 0.5, -1])
def test_a_truncated_file_says_what_to_do(prepared, kept):
    file = record(prepared)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=r"is damaged .*delete it and run prepare_test_set again"):
        read_test_set(prepared)


def test_a_missing_file_or_a_broken_description_says_what_to_do(prepared):
    info = prepared / "dataset_info.json"
    text = info.read_text()
    for broken in (text[: len(text) // 2], "{}", json.dumps({"name": 3})):
        info.write_text(broken)
        with pytest.raises(ValueError, match="run prepare_test_set again"):
            read_test_set(prepared)
    info.write_text(text)
    record(prepared).unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks the file .*run prepare_test_set again"):
        read_test_set(prepared)


def test_nothing_at_all_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no prepared data set"):
        read_test_set(tmp_path / "nowhere")
