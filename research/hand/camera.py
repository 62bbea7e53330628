"""A pinhole camera, and crops as cameras: mm -> px -> fraction of the crop.

Axes: x right, y down, z away from the camera. The centre of pixel (row i, column j) is (j + 0.5, i + 0.5) px,
so px / size is a fraction of the image, 0 at its left or top edge and 1 at the other.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_NEAREST_MM = 40.0  # a point closer than this is projected as if it were here


class Camera(NamedTuple):
    """Pinhole: focal length in px (scalar) and principal point in px [2]."""

    focal_px: jax.Array
    principal_px: jax.Array


def project(points_mm: jax.Array, camera: Camera) -> jax.Array:
    """Perspective projection of camera-frame points [N, 3] in mm to [N, 2] in px: f x / z + c.

    Points nearer than 40 mm, or behind the camera, are projected from a depth of 40 mm.
    Raises ValueError for points that are not [N, 3].
    """
    if points_mm.ndim != 2 or points_mm.shape[1] != 3:
        raise ValueError(f"points_mm must be [N, 3], got {list(points_mm.shape)}")
    depth_mm = jnp.maximum(points_mm[:, 2:], _NEAREST_MM)
    return points_mm[:, :2] / depth_mm * camera.focal_px + camera.principal_px[None, :]


def bounding_square(points_px: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Centre [2] of the bounding box of points [N, 2], and its longer side (scalar), in the same unit."""
    low, high = jnp.min(points_px, axis=0), jnp.max(points_px, axis=0)
    return (low + high) / 2.0, jnp.max(high - low)


def crop(camera: Camera, centre_px: jax.Array, side_px: jax.Array, size_px: int) -> Camera:
    """The camera whose size_px x size_px image is the square crop of side `side_px` about `centre_px` [2]."""
    zoom = size_px / side_px
    return Camera(camera.focal_px * zoom, (camera.principal_px - centre_px + side_px / 2.0) * zoom)


def to_unit(points_px: jax.Array, size_px: int) -> jax.Array:
    """Pixels -> fraction of an image of side `size_px`; any shape. Outside the image it leaves 0..1."""
    return points_px / size_px
