"""A fixed set of renders with what a real teacher sees in them, computed once: MediaPipe's keypoints and features.

The teacher never runs in a training step. Its features lie on disk in float16: keypoints, and of every tap the energy
of its plane (attention transfer) and the mean of each channel (mimicry). The folder's name tells renderer, teacher,
seed and taps by a checksum; work goes on where it stopped. Networks taught here are judged on human labels only:
labels that MediaPipe made would flatter them.
"""

from __future__ import annotations

import dataclasses as dc
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from research.data.mediapipe import DIGESTS, landmarks, load_peer
from research.data.parts import joined, parts
from research.data.synthetic import RenderedHands, examples_at
from research.spec import TAUGHT

PART = 64
_PROBES = 16
ITSELF = "none"


@dc.dataclass(frozen=True)
class TaughtHands:
    """The first `images` renders of the training stream, each with the features of `network` ("full" or "lite").

    `taps`: tensors of that network, see `Peer.taps`. `peers`: where research.data.prepare put it. `cache`: where
    features lie. network="none" needs no download: the labels and the picture itself stand for a teacher, to try
    the machinery with (what the shrunk run does).
    """

    hands: RenderedHands
    network: str = "full"
    images: int = 4096
    taps: tuple[str, ...] = ()
    peers: str = "runs/peers"
    cache: str = "runs/features"

    def __post_init__(self) -> None:
        if self.network not in (*DIGESTS, ITSELF):
            raise ValueError(f"no MediaPipe network {self.network!r}: choose {' or '.join(DIGESTS)}")
        if self.images < 1:
            raise ValueError(f"images must be at least 1, got {self.images}")

    @property
    def size_px(self) -> int:
        """Side of a crop."""
        return self.hands.size_px

    @property
    def test_images(self) -> int:
        """Size of the held-out set, which no teacher sees."""
        return self.hands.test_images

    def smoke(self) -> TaughtHands:
        """The tiny shape of smoke tests, without a download."""
        return dc.replace(self, hands=self.hands.smoke(), network=ITSELF, images=24)


def folder_of(spec: TaughtHands, seed: int) -> Path:
    """Where the features of a spec and seed lie: its checksum covers the pixels of the first renders."""
    probes = examples_at(spec.hands, seed, jnp.arange(_PROBES, dtype=jnp.uint32))
    told = hashlib.sha256(np.round(np.asarray(probes["image"]) * 255.0).astype(np.uint8).tobytes())
    facts = [dc.asdict(spec.hands), seed, spec.network, DIGESTS.get(spec.network), spec.images, spec.taps]
    told.update(json.dumps(facts, sort_keys=True).encode())
    return Path(spec.cache) / f"{spec.network}_{spec.images}_{told.hexdigest()[:12]}"


def seen_by(spec: TaughtHands) -> Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
    """`(images [N,S,S], keypoints [N,21,2]) -> features`: `keypoints`, `energy/TAP [N,h,w]`, `mean/TAP [N,C]`, float16.

    Errors as `load_peer` and `landmarks`.
    """
    if spec.network == ITSELF:
        return lambda images, keypoints: {
            "keypoints": keypoints.astype(np.float16),
            **{f"energy/{tap}": np.square(images).astype(np.float16) for tap in spec.taps},
            **{f"mean/{tap}": images.mean(axis=1).astype(np.float16) for tap in spec.taps},
        }
    peer = load_peer(spec.peers, spec.network)

    def see(images: np.ndarray, keypoints: np.ndarray) -> dict[str, np.ndarray]:
        seen = landmarks(peer, images, spec.taps)
        found = {"keypoints": seen.keypoints.astype(np.float16)}
        for tap, features in seen.taps.items():
            energy = np.square(features).mean(axis=3)
            largest = np.maximum(energy.max(axis=(1, 2), keepdims=True), 1e-9)  # its scale does not matter
            found[f"energy/{tap}"] = (energy / largest).astype(np.float16)
            found[f"mean/{tap}"] = features.mean(axis=(1, 2)).astype(np.float16)
        return found

    return see


def features(spec: TaughtHands, seed: int) -> Mapping[str, np.ndarray]:
    """Every feature of the set, `[images, ...]` float16, computed where it is not there yet; the names of `seen_by`.

    Errors as `load_peer` and `parts`.
    """
    see = functools.cache(lambda: seen_by(spec))  # loaded only where something is missing

    def make(start: int, stop: int) -> dict[str, np.ndarray]:
        drawn = examples_at(spec.hands, seed, jnp.arange(start, start + PART, dtype=jnp.uint32))
        return see()(
            np.asarray(drawn["image"])[: stop - start], np.asarray(drawn["keypoints"])[: stop - start]
        )

    if spec.network == ITSELF:
        return joined([make(start, min(start + PART, spec.images)) for start in range(0, spec.images, PART)])
    return parts(folder_of(spec, seed), spec.images, make, PART, f"teacher {spec.network}")


def examples(spec: TaughtHands) -> Callable[[int, np.ndarray], dict[str, jax.Array]]:
    """`(seed, indices) -> batch`: render `i % images` of the training stream with its `taught/...` features.

    Each seed has renders, and so features, of its own.
    """
    cached = functools.lru_cache(maxsize=2)(lambda seed: features(spec, seed))
    draw = jax.jit(lambda seed, indices: examples_at(spec.hands, seed, indices))

    def at(seed: int, indices: np.ndarray) -> dict[str, jax.Array]:
        rows = np.asarray(indices, np.int64) % spec.images
        found: dict[str, jax.Array] = dict(draw(seed, jnp.asarray(rows.astype(np.uint32))))
        taught = {f"{TAUGHT}{k}": jnp.asarray(v[rows], jnp.float32) for k, v in cached(seed).items()}
        return found | taught

    return at
