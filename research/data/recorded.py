"""Hands that were recorded, not rendered: FreiHAND as prepared, or an npz of your own, behind the same stream.

Pictures are decoded once, into bytes on disk that every process maps; batches come as `passes` says.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from research.data.augment import Augment
from research.data.freihand import FreiHandBuilder, read_crops
from research.data.npz import read_npz
from research.data.passes import Stored, passes
from research.data.prepared import INFO, open_split

SOURCES = ("freihand", "npz")
WIDE = 1.5
"""Side of a stored training crop, in those trained on: what turns and shifts bring in is real picture."""
_STORED_FILL = 0.45
_PART = 1024


@dataclass(frozen=True)
class RecordedHands:
    """Grey crops of one hand from `source` "freihand" (`path`: a prepared set) or "npz" (`path`: the file).

    Held out for tests are FreiHAND's evaluation pictures, or the last fifth of an npz: the first `test_images` of
    them. `digest`: SHA-256 of an npz, so that a run does not go on with another file.
    """

    source: str
    path: str
    size_px: int = 64
    test_images: int = 512
    augment: Augment = field(default_factory=Augment)
    digest: str = ""

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ValueError(f"no recorded data {self.source!r}: choose {' or '.join(SOURCES)}")
        if self.size_px < 16 or self.test_images < 1:
            raise ValueError(
                f"size_px={self.size_px} must be at least 16, test_images={self.test_images} at least 1"
            )

    def smoke(self) -> RecordedHands:
        """The tiny shape of smoke tests."""
        return RecordedHands(self.source, self.path, 32, 16, self.augment, self.digest)


def recorded(asked: str, folder: str | Path, size_px: int, test_images: int) -> RecordedHands:
    """The spec of `--data freihand` (prepared below `folder`) or `--data npz:FILE`.

    Raises FileNotFoundError where there is no file or nothing prepared, ValueError for another word or several sets.
    """
    word, _, file = asked.partition(":")
    if word == "npz" and file:
        if not Path(file).is_file():
            raise FileNotFoundError(f"no such file: {file}")
        with Path(file).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return RecordedHands("npz", file, size_px, test_images, digest=digest)
    if asked != "freihand":
        raise ValueError(f"--data {asked!r} must be freihand or npz:FILE")
    sets = sorted(path.parent for path in Path(folder).glob(f"{FreiHandBuilder.name}/*/*/{INFO}"))
    if not sets:
        command = f"python -m research.data.prepare freihand ARCHIVE --into {folder}"
        raise FileNotFoundError(f"no FreiHAND prepared in {str(folder)!r}: run {command}, or name --data-dir")
    if len(sets) > 1:
        raise ValueError(f"{len(sets)} prepared FreiHAND sets in {str(folder)!r}: keep one a folder")
    return RecordedHands("freihand", str(sets[0]), size_px, test_images)


@functools.lru_cache(maxsize=4)
def training(spec: RecordedHands) -> Stored:
    """The training pictures of a spec, `WIDE` times its size. Errors as `read_crops` and `read_npz`."""
    side = round(WIDE * spec.size_px)
    if spec.source == "npz":
        images, keypoints = _npz(spec, side)
        kept = _kept(len(images))
        return Stored(_bytes(images[:kept]), keypoints[:kept])
    folder = Path(spec.path)
    crops = folder / f"crops_{side}px"
    if not crops.is_dir():
        _decode(folder, side, crops)
    return Stored(np.load(crops / "picture.npy", mmap_mode="r"), np.load(crops / "keypoints.npy"))


def _decode(folder: Path, side: int, target: Path) -> None:
    """Decodes the training split once into `target`, whole or not at all."""
    count = _count(folder, "training")
    aside = Path(tempfile.mkdtemp(prefix=".decoding_", dir=folder))
    try:
        pictures = np.lib.format.open_memmap(aside / "picture.npy", "w+", np.uint8, (count, side, side))
        points = np.empty((count, 21, 2), np.float32)
        bar = tqdm(range(0, count, _PART), "crops", unit="k", disable=not sys.stderr.isatty(), leave=False)
        for start in bar:
            stop = min(start + _PART, count)
            crops = read_crops(folder, "training", side, range(start, stop), _STORED_FILL)
            pictures[start:stop], points[start:stop] = _bytes(crops.image), crops.keypoints
        pictures.flush()
        np.save(aside / "keypoints.npy", points)
        try:
            os.rename(aside, target)
        except OSError:
            if not target.is_dir():  # else another process was quicker
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def held_out(spec: RecordedHands) -> tuple[np.ndarray, np.ndarray]:
    """Test images `[N,S,S]` in 0..1 and keypoints `[N,21,2]`, as they were recorded. Errors as `training`."""
    if spec.source == "npz":
        images, keypoints = _npz(spec, spec.size_px)
        chosen = slice(_kept(len(images)), _kept(len(images)) + spec.test_images)
        return images[chosen], keypoints[chosen]
    count = min(spec.test_images, _count(Path(spec.path), "evaluation"))
    crops = read_crops(spec.path, "evaluation", spec.size_px, range(count))
    return crops.image, crops.keypoints


def examples(spec: RecordedHands) -> Callable[[int, np.ndarray], dict[str, jax.Array]]:
    """`(seed, indices [B]) -> {"image" [B,S,S], "keypoints" [B,21,2]}`: see `passes`."""
    stored = training(spec)
    return passes(lambda seed: stored, spec.augment, spec.size_px)


def _count(folder: Path, split: str) -> int:
    return len(open_split(folder, split, ["image"], "prepare it again"))


def _npz(spec: RecordedHands, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The file, if it is still the one the spec was made of."""
    with Path(spec.path).open("rb") as stream:
        if spec.digest and hashlib.file_digest(stream, "sha256").hexdigest() != spec.digest:
            raise ValueError(f"{spec.path} changed since this experiment was made: choose another --workdir")
    images, keypoints = read_npz(spec.path, side)
    if len(images) < 5:
        raise ValueError(
            f"{spec.path}: {len(images)} examples; training needs at least 5, a fifth is held out"
        )
    return images, keypoints


def _kept(count: int) -> int:
    """How many of `count` examples are trained on."""
    return count - count // 5


def _bytes(images: np.ndarray) -> np.ndarray:
    return np.round(images * 255.0).astype(np.uint8)
