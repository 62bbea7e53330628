"""FreiHAND: the archive the user brings (research licence), checked, prepared once, and cropped to hands.

An unpacked archive holds `training/rgb/00000000.jpg ...`, `training_K.json`, `training_xyz.json`, and the same for
`evaluation`. Training pictures come in versions of other backgrounds: picture i shows sample i modulo their number.
Nothing here uses the network. https://lmb.informatik.uni-freiburg.de/projects/freihand
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tqdm import tqdm

from research.data.prepared import LocalInfo, explained, open_split, prepare_once

SPLITS = ("training", "evaluation")
SIDE_PX = 224
FILL = 0.7
"""Share of a crop's side that the box of the joints takes."""
_VERSION = "2.0.0"
_AGAIN = "run prepare_freihand again"


class Annotations(NamedTuple):
    """What an archive says of a split: cameras `[N,3,3]` in px, joints `[N,21,3]` in m, names of the M*N pictures."""

    camera_px: np.ndarray
    xyz_m: np.ndarray
    pictures: tuple[Path, ...]


def keypoints_px(camera_px: np.ndarray, xyz_m: np.ndarray) -> np.ndarray:
    """Joints in their pictures: cameras `[N,3,3]` and joints `[N,21,3]` -> `[N,21,2]`, `(K xyz) / z`."""
    seen = np.einsum("nij,nkj->nki", camera_px, xyz_m)
    return seen[:, :, :2] / seen[:, :, 2:]


def _numbers(file: Path, shape: tuple[int, int]) -> np.ndarray:
    """The json file's array `[N, *shape]`, or one clear error."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: unpack the whole FreiHAND archive into {file.parent}")
    try:
        found = np.asarray(json.loads(file.read_text()), np.float64)
    except (ValueError, TypeError) as error:  # truncated, or rows of unequal length
        raise ValueError(f"{file} is damaged ({str(error).splitlines()[0]}): unpack it again") from error
    if found.ndim != 3 or found.shape[1:] != shape or len(found) == 0:
        raise ValueError(f"{file} must hold {list(shape)} numbers a sample, got shape {list(found.shape)}")
    if not np.isfinite(found).all():
        raise ValueError(f"{file} holds values that are not finite: unpack it again")
    return found


def read_annotations(archive: str | Path, split: str) -> Annotations:
    """The labels of a split and its pictures, checked against each other; no picture is opened.

    Raises:
      FileNotFoundError: a file of labels, or pictures between others, are missing.
      ValueError: an unknown split, truncated json, wrong shapes, unequal counts, a sample whose labels cannot be of
        its picture (most joints outside it, or behind the camera).
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r} of FreiHAND: choose {' or '.join(SPLITS)}")
    root = Path(archive)
    cameras = _numbers(root / f"{split}_K.json", (3, 3))
    joints = _numbers(root / f"{split}_xyz.json", (21, 3))
    if len(cameras) != len(joints):
        raise ValueError(f"{split}_K.json has {len(cameras)} samples but {split}_xyz.json has {len(joints)}")
    behind = (joints[:, :, 2] <= 0).any(axis=1)
    depth = np.where(joints[:, :, 2:] > 0, joints[:, :, 2:], 1.0)
    seen = keypoints_px(cameras, np.concatenate([joints[:, :, :2], depth], axis=2))
    inside = ((seen >= 0) & (seen <= SIDE_PX)).all(axis=2).mean(axis=1)
    far = (np.abs(seen - SIDE_PX / 2) > 2 * SIDE_PX).any(axis=(1, 2))
    wrong = np.flatnonzero(behind | far | (inside < 0.5))
    if wrong.size:
        lies = f"its joints lie outside its picture ({wrong.size} such samples)"
        raise ValueError(f"sample {wrong[0]} of {split} is mislabelled: {lies}")
    folder = root / split / "rgb"
    pictures = tuple(sorted(folder.glob("*.jpg")))
    if not pictures:
        raise FileNotFoundError(f"no pictures in {folder}: unpack the whole FreiHAND archive into {root}")
    missing = next((i for i, p in enumerate(pictures) if p.name != f"{i:08d}.jpg"), len(pictures))
    if missing < len(pictures) or len(pictures) % len(joints):
        raise FileNotFoundError(
            f"{folder / f'{missing:08d}.jpg'} is missing: {len(joints)} samples, {len(pictures)} pictures"
        )
    return Annotations(cameras, joints, pictures)


class FreiHandBuilder(tfds.core.GeneratorBasedBuilder):
    """TFDS builder: `image` (the archive's JPEG), `camera_px` [3,3], `xyz_m` [21,3], `sample`, `version`.

    Made by `prepare_freihand`; afterwards `tfds.builder_from_directory(path)` opens it anywhere.
    """

    name = "freihand"
    VERSION = tfds.core.Version(_VERSION)
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Unpack FreiHAND_pub_v2.zip yourself; its licence is for research only."

    def __init__(self, splits: dict[str, Annotations], data_dir: str) -> None:
        """A builder of the splits given, into `data_dir`."""
        self.found = splits
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(SIDE_PX, SIDE_PX, 3), encoding_format="jpeg"),
            "camera_px": tfds.features.Tensor(shape=(3, 3), dtype=np.float32),
            "xyz_m": tfds.features.Tensor(shape=(21, 3), dtype=np.float32),
            "sample": tfds.features.Scalar(dtype=np.int64),
            "version": tfds.features.Scalar(dtype=np.int64),
        }
        return LocalInfo(
            builder=self,
            description="FreiHAND",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split, found) for split, found in self.found.items()}

    def _generate_examples(self, split: str, found: Annotations) -> Iterator[tuple[int, dict[str, Any]]]:
        quiet = not sys.stderr.isatty()
        for i, path in enumerate(tqdm(found.pictures, split, unit="hand", disable=quiet, leave=False)):
            version, sample = divmod(i, len(found.xyz_m))
            yield (
                i,
                {
                    "image": io.BytesIO(_checked(path)),
                    "camera_px": found.camera_px[sample].astype(np.float32),
                    "xyz_m": found.xyz_m[sample].astype(np.float32),
                    "sample": sample,
                    "version": version,
                },
            )


def _checked(path: Path) -> bytes:
    """The bytes of a picture that decodes and has the right size; ValueError otherwise."""
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            size, kind = image.size, image.format
    except (OSError, SyntaxError) as error:
        raise ValueError(
            f"{path} is no whole JPEG ({str(error).splitlines()[0]}): unpack it again"
        ) from error
    if size != (SIDE_PX, SIDE_PX) or kind != "JPEG":
        raise ValueError(f"{path} is a {kind} of {size[0]}x{size[1]} px, not a JPEG of {SIDE_PX}x{SIDE_PX}")
    return data


def prepare_freihand(
    archive: str | Path, data_dir: str | Path, splits: Sequence[str] = ("training", "evaluation")
) -> Path:
    """Checks the unpacked archive and prepares it once; returns the set's folder under `data_dir`.

    A progress bar shows on a terminal. An interrupted or refused preparation leaves nothing behind.

    Raises:
      FileNotFoundError, ValueError: as `read_annotations`; a picture that is truncated or has another size.
      OSError: `data_dir` cannot be written.
    """
    found = {split: read_annotations(archive, split) for split in splits}
    told = hashlib.sha256()
    for split, labels in found.items():
        told.update(split.encode() + labels.camera_px.tobytes() + labels.xyz_m.tobytes())
        told.update(str([path.stat().st_size for path in labels.pictures]).encode())
    root = Path(data_dir).absolute()
    final = root / FreiHandBuilder.name / told.hexdigest()[:10] / _VERSION
    return prepare_once(final, root, lambda folder: FreiHandBuilder(found, folder))


class Crops(NamedTuple):
    """Grey crops `image [N,S,S]` in 0..1, `keypoints [N,21,2]` in fractions of them, `xyz_m [N,21,3]`."""

    image: np.ndarray
    keypoints: np.ndarray
    xyz_m: np.ndarray


def read_crops(
    path: str | Path, split: str, size_px: int, indices: Sequence[int] | None = None, fill: float = FILL
) -> Crops:
    """Square grey crops about the hands of a prepared set, all of them or those at `indices`.

    The box of the joints takes `fill` of the side; what lies outside the picture is black. Luma is ITU-R BT.601.

    Raises:
      FileNotFoundError: nothing prepared at `path`, or a file of it is gone.
      ValueError: an unknown split, a damaged file, `size_px` below 16.
      IndexError: an index outside the split.
    """
    if size_px < 16:
        raise ValueError(f"size_px must be at least 16, got {size_px}")
    folder = Path(path)
    source = open_split(folder, split, ["image"], _AGAIN)
    chosen = range(len(source)) if indices is None else indices
    outside = [i for i in chosen if not 0 <= i < len(source)]
    if outside:
        raise IndexError(f"index {outside[0]} is outside the {len(source)} examples of {split}")
    images, keypoints, joints = [], [], []
    with explained(folder, _AGAIN):
        for i in chosen:
            row = source[i]
            points = keypoints_px(row["camera_px"][None], row["xyz_m"][None])[0]
            low, high = points.min(axis=0), points.max(axis=0)
            side = float((high - low).max()) / fill
            corner = (low + high) / 2 - side / 2
            (left, upper), (right, lower) = corner.tolist(), (corner + side).tolist()
            with Image.open(io.BytesIO(row["image"])) as picture:
                images.append(_cropped(picture.convert("L"), (left, upper, right, lower), size_px))
            keypoints.append((points - corner) / side)
            joints.append(row["xyz_m"])
    return Crops(np.stack(images), np.stack(keypoints).astype(np.float32), np.stack(joints))


def _cropped(grey: Image.Image, box: tuple[float, float, float, float], size_px: int) -> np.ndarray:
    """The part of a picture inside `box` (left, upper, right, lower, in px), resized without aliasing."""
    left, upper = (int(np.floor(min(0.0, edge))) for edge in box[:2])
    right, lower = (int(np.ceil(max(side, edge))) for side, edge in zip(grey.size, box[2:], strict=True))
    wide = Image.new("L", (right - left, lower - upper))
    wide.paste(grey, (-left, -upper))
    moved = (box[0] - left, box[1] - upper, box[2] - left, box[3] - upper)
    resized = wide.resize((size_px, size_px), Image.Resampling.BILINEAR, box=moved)
    return np.asarray(resized, np.float32) / np.float32(255.0)
