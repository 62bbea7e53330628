"""Images and keypoints from outside, in an npz file, for judging a network on hands it has never seen."""

import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

_BATCH = 64


def resize(images: np.ndarray, size_px: int) -> np.ndarray:
    """Antialiased linear resize of grey images [N, H, W] to [N, size_px, size_px], float32.

    Other proportions are squeezed to the square: keypoints are fractions, so they stay right.
    """
    if images.shape[1:] == (size_px, size_px):
        return np.asarray(images, np.float32)
    parts = []
    for start in range(0, len(images), _BATCH):
        part = jnp.asarray(images[start : start + _BATCH], jnp.float32)
        parts.append(
            np.asarray(jax.image.resize(part, (len(part), size_px, size_px), "linear", antialias=True))
        )
    return np.concatenate(parts)


def _load(path: Path) -> dict[str, np.ndarray]:
    """The two arrays of the file, or one clear error."""
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            missing = [name for name in ("image", "keypoints") if name not in file]
            if not missing:
                return {name: file[name] for name in ("image", "keypoints")}
            held = ", ".join(file) or "nothing"
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as an npz file of plain arrays: {error}") from error
    raise ValueError(f"{path} lacks {' and '.join(missing)}: it needs image and keypoints, and holds {held}")


def read_npz(path: str | Path, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads `image` [N, H, W], grey in 0..1, and `keypoints` [N, 21, 2], x right and y down, in images.

    Returns:
      images [N, size_px, size_px] float32 in 0..1 and keypoints [N, 21, 2] float32. Keypoints may lie outside
      0..1: joints that the crop leaves out.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not an npz, a missing array, a wrong shape or type, an empty set, image values outside 0..1,
        a value that is not finite.
    """
    arrays = _load(Path(path))
    image, keypoints = arrays["image"], arrays["keypoints"]
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{path}: {name} must hold numbers, got dtype {array.dtype}")
    if image.ndim != 3 or 0 in image.shape[1:]:
        raise ValueError(f"{path}: image must be [N, H, W] grey, got {list(image.shape)}")
    if keypoints.ndim != 3 or keypoints.shape[1:] != (21, 2):
        raise ValueError(f"{path}: keypoints must be [N, 21, 2], got {list(keypoints.shape)}")
    if len(image) != len(keypoints):
        raise ValueError(f"{path}: {len(image)} images but {len(keypoints)} sets of keypoints")
    if len(image) == 0:
        raise ValueError(f"{path}: holds no examples")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{path}: {name} holds values that are not finite")
    if image.min() < 0 or image.max() > 1:
        raise ValueError(
            f"{path}: image must lie in 0..1, got {image.min():.4g}..{image.max():.4g}; divide bytes by 255"
        )
    return np.clip(resize(image, size_px), 0.0, 1.0), np.asarray(keypoints, np.float32)
