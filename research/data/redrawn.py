"""A large fixed set of renders, drawn once and wider than a crop; place, turn, light and frame anew in each step.

Rendering is a good part of a small network's train step on a CPU: a set that is passed several times, varied each
time, leaves it out and sees as many poses as it holds.
"""

from __future__ import annotations

import dataclasses as dc
import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from research.data.augment import Augment
from research.data.parts import parts
from research.data.passes import Stored, passes
from research.data.rendered_hands import checksum
from research.data.synthetic import RenderedHands, examples_at

WIDE = 1.5
"""Side of a stored picture, in crops trained on: what turns and shifts bring in is drawn, not made up."""
_FILL = 0.45
_PART, _BATCH = 2048, 64


@dc.dataclass(frozen=True)
class RedrawnHands:
    """The first `images` renders of the training stream of `hands`, each pass of them varied by `augment`.

    `augment.fill` and `augment.shift` place the hand in the crop instead of those of `hands.look`; turns add up.
    `cache`: where the renders lie, `images` times (1.5 size_px)^2 bytes; "": nowhere, they are drawn in every process.
    """

    hands: RenderedHands
    images: int = 65536
    augment: Augment = dc.field(default_factory=Augment)
    cache: str = "runs/renders"

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"images must be at least 1, got {self.images}")

    @property
    def size_px(self) -> int:
        """Side of a crop."""
        return self.hands.size_px

    @property
    def test_images(self) -> int:
        """Size of the held-out set, which is drawn as `hands` says and not varied."""
        return self.hands.test_images

    def smoke(self) -> RedrawnHands:
        """The tiny shape of smoke tests."""
        return dc.replace(self, hands=self.hands.smoke(), images=24, cache="")

    def wide(self) -> RenderedHands:
        """What is stored: hands in the middle of a wider picture."""
        look = dc.replace(self.hands.look, fill=(_FILL, _FILL), shift=0.0)
        return RenderedHands(round(WIDE * self.size_px), look=look)


def folder_of(spec: RedrawnHands, seed: int) -> Path:
    """Where the renders of a spec and seed lie."""
    wide = spec.wide()
    return Path(spec.cache) / f"{wide.size_px}px_{spec.images}_seed{seed}_{checksum(wide, seed)}"


def renders(spec: RedrawnHands, seed: int) -> Stored:
    """The renders of a seed, drawn where they are not there yet. Errors as `parts`."""

    def make(start: int, stop: int) -> dict[str, np.ndarray]:
        picture = np.empty((stop - start, spec.wide().size_px, spec.wide().size_px), np.uint8)
        keypoints = np.empty((stop - start, 21, 2), np.float32)
        for low in range(start, stop, _BATCH):
            drawn = jax.device_get(
                examples_at(spec.wide(), seed, jnp.arange(low, low + _BATCH, dtype=jnp.uint32))
            )
            mine = slice(low - start, min(low + _BATCH, stop) - start)
            count = mine.stop - mine.start
            picture[mine] = np.round(drawn["image"][:count] * 255.0)
            keypoints[mine] = drawn["keypoints"][:count]
        return {"picture": picture, "keypoints": keypoints}

    if not spec.cache:
        return Stored(**make(0, spec.images))
    return Stored(**parts(folder_of(spec, seed), spec.images, make, _PART, "renders"))


def examples(spec: RedrawnHands) -> Callable[[int, np.ndarray], dict[str, jax.Array]]:
    """`(seed, indices [B]) -> {"image" [B,S,S], "keypoints" [B,21,2]}`: see `passes`. Each seed has its own renders."""
    return passes(
        functools.lru_cache(maxsize=1)(lambda seed: renders(spec, seed)), spec.augment, spec.size_px
    )
