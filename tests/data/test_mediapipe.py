"""Preparing from a wheel made here, and running networks of the same form: one finds what it is drawn to find."""

import functools
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.data import mediapipe
from research.data.mediapipe import SIDE_PX, landmarks, load_peer, prepare_mediapipe
from research.graph import Program, trace, write

LICENCE = "A licence of our own."
NAMES = ("full", "lite")


def brightest(size: float, params: Any, image: jax.Array) -> tuple[jax.Array, ...]:
    """21 joints, all at the centre of brightness in px; the presence is the largest brightness."""
    x = image + image
    grey = jnp.mean(x, axis=3)
    total = jnp.sum(grey, axis=(1, 2))[:, None]
    ramp = jnp.asarray((np.arange(SIDE_PX) + 0.5) * size, jnp.float32)
    along = jnp.sum(grey * ramp[None, None, :], axis=(1, 2))[:, None] / total
    down = jnp.sum(grey * ramp[None, :, None], axis=(1, 2))[:, None] / total
    point = jnp.concatenate([along, down, jnp.zeros_like(along)], axis=1)
    presence = jnp.max(grey, axis=(1, 2))[:, None]
    return jnp.concatenate([point] * 21, axis=1), presence, presence, jnp.concatenate([point] * 21, axis=1)


@functools.cache
def network(size: float) -> bytes:
    params: dict[str, np.ndarray] = {}
    image = jax.ShapeDtypeStruct((1, SIDE_PX, SIDE_PX, 3), jnp.float32)
    return write(Program(trace(functools.partial(brightest, size), params, image), params))


def make_wheel(path: Path, **changes: bytes | None) -> Mapping[str, str]:
    """A wheel with two networks and a licence; returns their digests. A change of None leaves a file out."""
    files: dict[str, bytes | None] = {"full": network(1.0), "lite": network(0.5), "licence": LICENCE.encode()}
    digests = {name: hashlib.sha256(files[name] or b"").hexdigest() for name in NAMES}
    with zipfile.ZipFile(path, "w") as held:
        for name, data in (files | changes).items():
            inside = mediapipe._LICENCE if name == "licence" else mediapipe._INSIDE.format(name)
            if data is not None:
                held.writestr(inside, data)
    return digests


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, str]]:
    root = tmp_path_factory.mktemp("mediapipe")
    digests = make_wheel(root / "a.whl")
    assert prepare_mediapipe(root / "out", root / "a.whl", digests) == LICENCE
    return root / "out", digests


def test_preparing_again_needs_no_wheel(prepared: tuple[Path, Mapping[str, str]]) -> None:
    folder, digests = prepared
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert len(before) == 3
    assert prepare_mediapipe(folder, "nowhere.whl", digests) == LICENCE
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_landmarks_are_where_the_light_is(prepared: tuple[Path, Mapping[str, str]]) -> None:
    rng = np.random.default_rng(0)
    images = np.zeros((11, 56, 56), np.float32)
    spots = rng.integers(8, 48, (11, 2))
    for image, (row, column) in zip(images, spots, strict=True):
        image[row, column] = 1.0
    full, lite = (load_peer(prepared[0], name, prepared[1]) for name in NAMES)
    found = landmarks(full, images, full.taps)
    assert found.keypoints.shape == (11, 21, 2)
    np.testing.assert_allclose(found.keypoints[:, 0], (spots[:, ::-1] + 0.5) / 56, atol=1e-3)
    np.testing.assert_array_equal(found.keypoints[:, 20], found.keypoints[:, 0])
    np.testing.assert_allclose(landmarks(lite, images).keypoints, found.keypoints / 2, rtol=1e-5)
    assert full.taps
    assert {name: value.shape[0] for name, value in found.taps.items()} == dict.fromkeys(full.taps, 11)
    assert (found.presence > 0).all()


def test_bad_questions_are_refused(prepared: tuple[Path, Mapping[str, str]]) -> None:
    folder, digests = prepared
    peer = load_peer(folder, "full", digests)
    with pytest.raises(ValueError, match=r"images must be \[N, H, W\] grey"):
        landmarks(peer, np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match=r"N >= 1, got \[0, 8, 8\]"):
        landmarks(peer, np.zeros((0, 8, 8), np.float32))
    with pytest.raises(ValueError, match="no tensor 'neck'; its taps are"):
        landmarks(peer, np.zeros((1, 8, 8), np.float32), ["neck"])
    with pytest.raises(ValueError, match="no MediaPipe network 'heavy': choose full or lite"):
        load_peer(folder, "heavy", digests)
    with pytest.raises(FileNotFoundError, match=r"run python -m research\.data\.prepare mediapipe --into"):
        load_peer(folder / "other", "full", digests)


def test_a_damaged_file_is_refused_and_prepared_again(tmp_path: Path) -> None:
    digests, wheel = make_wheel(tmp_path / "a.whl"), tmp_path / "a.whl"
    prepare_mediapipe(tmp_path, wheel, digests)
    file = tmp_path / "hand_landmark_lite.tflite"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is damaged or another file"):
        load_peer(tmp_path, "lite", digests)
    prepare_mediapipe(tmp_path, wheel, digests)
    assert load_peer(tmp_path, "lite", digests).name == "lite"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lite": b"another"}, "holds another .*hand_landmark_lite"),
        ({"full": None}, "is not the wheel of mediapipe==0.10.21"),
        ({"licence": None}, "is not the wheel of mediapipe==0.10.21"),
    ],
)
def test_another_wheel_is_refused_and_leaves_nothing(
    tmp_path: Path, change: dict[str, bytes | None], words: str
) -> None:
    digests = make_wheel(tmp_path / "a.whl", **change)
    with pytest.raises(ValueError, match=words):
        prepare_mediapipe(tmp_path / "out", tmp_path / "a.whl", digests)
    assert not (tmp_path / "out").exists()


def test_no_wheel_and_no_zip(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no wheel"):
        prepare_mediapipe(tmp_path / "out", tmp_path / "none.whl")
    (tmp_path / "a.whl").write_bytes(b"PK not at all")
    with pytest.raises(ValueError, match="not a zip file"):
        prepare_mediapipe(tmp_path / "out", tmp_path / "a.whl")


def test_a_failing_pip_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mediapipe, "REQUIREMENT", "no-such-thing @ file:///nowhere/at/all.whl")
    with pytest.raises(
        OSError, match=r"cannot be fetched .*bring the wheel yourself with --wheel FILE"
    ) as refused:
        prepare_mediapipe(tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()
