"""What leaves the network, and how a host reads 21 keypoints from it: the decode of every kind of head.

The shape of the output says the kind, so a `.tflite` file needs no note beside it: `[N,42]` are coordinates (less 0.5),
`[N,42*bins]` one row of logits an axis (SimCC, Li et al., ECCV 2022), `[N,H,W,21*r*r]` a heatmap whose channels hold
r x r cells of each place (the pixel shuffle of Shi et al., CVPR 2016, left to the host). Logits become coordinates
by their expectation (Nibali et al., "DSNT", 2018), in float: 8 bits are too few for a softmax inside the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

KEYPOINTS = 21
KINDS = ("coordinates", "simcc", "heatmap")
_SPAN = 1.25  # SimCC's bins cover this many crops about the centre: joints may lie outside


@dataclass(frozen=True)
class Head:
    """`kind` of output; `bins` an axis (simcc: any, 0 for 32; heatmap: a multiple of the last plane's side, 0 for 4).

    `hidden` numbers stand between the flattened plane and a dense output (0: none); a heatmap has none.
    """

    kind: str = "coordinates"
    bins: int = 0
    hidden: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"head.kind={self.kind!r} must be one of {', '.join(KINDS)}")
        if self.bins < 0 or self.bins == 1 or (self.kind == "coordinates" and self.bins):
            raise ValueError(
                f"head.bins={self.bins}: coordinates have 0 bins, others at least 2 (0: as many as fit)"
            )
        if self.hidden < 0 or (self.hidden and self.kind == "heatmap"):
            raise ValueError(f"head.hidden={self.hidden} does not go with {self.kind!r}")

    def smoke(self) -> Head:
        """The same kind, small."""
        return Head(self.kind, 8 if self.kind == "simcc" else 0, min(self.hidden, 8))


def outputs(head: Head, plane: int) -> int:
    """Channels of the last layer over a last plane of `plane` x `plane` places.

    ValueError for a heatmap whose bins are no multiple of `plane`.
    """
    if head.kind == "coordinates":
        return 2 * KEYPOINTS
    if head.kind == "simcc":
        return 2 * KEYPOINTS * (head.bins or 32)
    if head.bins % plane:
        raise ValueError(f"head.bins={head.bins} must be a multiple of {plane}, the side of the last plane")
    return KEYPOINTS * ((head.bins // plane) or 4) ** 2


def places(bins: int, heatmap: bool) -> np.ndarray:
    """Centres `[bins]` of an axis' cells, in fractions of the crop."""
    centres = (np.arange(bins) + 0.5) / bins
    return np.asarray(centres if heatmap else (centres - 0.5) * _SPAN + 0.5, np.float32)


def kind_of(shape: tuple[int, ...]) -> str:
    """The kind of head that puts out `shape` an image (without N). ValueError for the shape of none."""
    if shape == (2 * KEYPOINTS,):
        return "coordinates"
    if len(shape) == 1 and shape[0] % (2 * KEYPOINTS) == 0 and shape[0]:
        return "simcc"
    cells = shape[2] // KEYPOINTS if len(shape) == 3 and shape[0] == shape[1] else 0
    if cells and shape[2] == cells * KEYPOINTS and math.isqrt(cells) ** 2 == cells:
        return "heatmap"
    wanted = f"not {2 * KEYPOINTS}, nor rows or heatmaps of them"
    raise ValueError(f"a head that puts out {list(shape)} numbers an image, {wanted}")


def axes(raw: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities `[N,21,2,bins]` along x and y from logits, and the cells' centres `[bins]`.

    ValueError for coordinates, which have none, and for other shapes.
    """
    kind = kind_of(raw.shape[1:])
    if kind == "coordinates":
        raise ValueError("coordinates have no axes of probabilities: choose head.kind='simcc' or 'heatmap'")
    if kind == "simcc":
        rows = raw.reshape(raw.shape[0], KEYPOINTS, 2, -1)
        return jax.nn.log_softmax(rows, axis=3), jnp.asarray(places(rows.shape[3], False))
    count, side, parts = raw.shape[0], raw.shape[1], math.isqrt(raw.shape[3] // KEYPOINTS)
    cells = raw.reshape(count, side, side, KEYPOINTS, parts, parts).transpose(0, 3, 1, 4, 2, 5)
    bins = side * parts
    whole = jax.nn.log_softmax(cells.reshape(count, KEYPOINTS, bins * bins), axis=2)
    plane = whole.reshape(count, KEYPOINTS, bins, bins)
    log_x, log_y = (jax.nn.logsumexp(plane, axis=axis) for axis in (2, 3))
    return jnp.stack([log_x, log_y], axis=2), jnp.asarray(places(bins, True))


def decode(raw: jax.Array) -> jax.Array:
    """Keypoints `[N,21,2]` in fractions of the crop from what a network put out. ValueError: `kind_of`."""
    if kind_of(raw.shape[1:]) == "coordinates":
        return raw.reshape(raw.shape[0], KEYPOINTS, 2) + 0.5
    chances, centres = axes(raw)
    return jnp.sum(jnp.exp(chances) * centres[None, None, None, :], axis=3)
