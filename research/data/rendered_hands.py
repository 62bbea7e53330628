"""The held-out test set of rendered hands, prepared once with TensorFlow Datasets, without TensorFlow.

Images are kept as 8-bit PNG in array_record files; what is read back, not what was rendered, is the test set.
Nothing here uses the network.
"""

import hashlib
import inspect
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tqdm import tqdm

from research.data import backdrop, raster, scene, sensor, shade, synthetic
from research.data.prepared import LocalInfo, explained, open_split, prepare_once
from research.data.synthetic import TEST_STREAM, RenderedHands, examples_at
from research.hand import camera, chance, pose, rig, surface

_DRAWN_BY = (chance, rig, pose, surface, camera, raster, shade, backdrop, sensor, scene, synthetic)
_BATCH = 64
_SPLIT = "test"
_VERSION = "1.0.0"
_AGAIN = "run prepare_test_set again"


class RenderedHandsBuilder(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of one test split: `image` uint8 [H, W, 1] and `keypoints` float32 [21, 2].

    Made by `prepare_test_set`; afterwards `tfds.builder_from_directory(path)` opens it anywhere.
    """

    name = "rendered_hands"
    VERSION = tfds.core.Version(_VERSION)

    def __init__(self, spec: RenderedHands, seed: int, data_dir: str) -> None:
        """A builder that will render `spec.test_images` of `seed`'s test stream into `data_dir`."""
        self.spec, self.seed = spec, seed
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.spec.size_px
        features = {
            "image": tfds.features.Image(shape=(size, size, 1), encoding_format="png"),
            "keypoints": tfds.features.Tensor(shape=(21, 2), dtype=np.float32),
        }
        return LocalInfo(
            builder=self,
            description="Held-out rendered hands",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {_SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        spec = self.spec
        count = spec.test_images
        with tqdm(
            total=count, desc="test set", unit="hand", disable=not sys.stderr.isatty(), leave=False
        ) as bar:
            for start in range(0, count, _BATCH):
                indices = jnp.arange(start, start + _BATCH, dtype=jnp.uint32)
                drawn = jax.device_get(examples_at(spec, self.seed, indices, TEST_STREAM))
                grey = np.round(drawn["image"] * 255.0).astype(np.uint8)
                for i in range(min(_BATCH, count - start)):
                    yield start + i, {"image": _png(grey[i]), "keypoints": drawn["keypoints"][i]}
                    bar.update()


def _png(grey: np.ndarray) -> io.BytesIO:
    """An 8-bit image [H, W] as a PNG file in memory."""
    file = io.BytesIO()
    Image.fromarray(grey).save(file, format="PNG")
    file.seek(0)
    return file


def checksum(spec: RenderedHands, seed: int) -> str:
    """Ten digits that change with the spec, the seed and the source that draws the hands."""
    source = "".join(inspect.getsource(module) for module in _DRAWN_BY)
    told = json.dumps([asdict(spec), seed, source], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:10]


def _folder(spec: RenderedHands, seed: int) -> str:
    return f"{spec.size_px}px_{spec.test_images}_seed{seed}_{checksum(spec, seed)}"


def prepare_test_set(spec: RenderedHands, seed: int, data_dir: str | Path) -> Path:
    """Renders the held-out test set once and returns its folder under `data_dir`.

    A set that is already there is left as it is. The set is written aside and moved into place whole, so an
    interrupted preparation leaves no set and is simply redone. A progress bar shows on a terminal.

    Raises:
      OSError: `data_dir` cannot be written.
    """
    root = Path(data_dir).absolute()
    final = root / RenderedHandsBuilder.name / _folder(spec, seed) / _VERSION
    return prepare_once(final, root, lambda folder: RenderedHandsBuilder(spec, seed, folder))


def read_test_set(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads a prepared set, in order.

    Returns:
      images [N, H, W] float32 in 0..1 (multiples of 1/255) and keypoints [N, 21, 2] float32.

    Raises:
      FileNotFoundError: nothing prepared at `path`, or a file of it is gone.
      ValueError: a file is damaged.
    """
    folder = Path(path)
    source = open_split(folder, _SPLIT, ["image"], _AGAIN)
    with explained(folder, _AGAIN):
        rows = [source[i] for i in range(len(source))]
        grey = [np.asarray(Image.open(io.BytesIO(row["image"]))) for row in rows]
    images = np.stack(grey).astype(np.float32) / np.float32(255.0)
    return images, np.stack([row["keypoints"] for row in rows]).astype(np.float32)
