"""A fast soft z-buffer for tapered capsules: elementwise JAX, so it batches and runs on any device.

A stroke is a tapered capsule seen by the camera: ends in px, depth in px (mm times px per mm), radii in px.
Strokes are composited one after another, far ones first. A stroke covers a pixel by an anti-aliased edge
times a soft depth test, so that capsules that meet at one depth blend into one skin.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

FAR_PX: float = 1e4
"""Depth of the background."""


class Strokes(NamedTuple):
    """K tapered capsules; every field is [K] except start and end [K, 3] (x px, y px, depth px).

    albedo: reflected fraction. blend: px of depth over which the stroke melts into what it meets.
    lit: 1 for a shaded body, 0 for a flat patch. round: 1 where shading follows the capsule's own normal,
    less where it leans to `facing` [K, 3], the unit normal of the broad surface that it is a part of.
    shadow: darkening around the stroke of the surface close behind it.
    """

    start: jax.Array
    end: jax.Array
    start_radius: jax.Array
    end_radius: jax.Array
    albedo: jax.Array
    blend: jax.Array
    lit: jax.Array
    round: jax.Array
    facing: jax.Array
    shadow: jax.Array


class Light(NamedTuple):
    """way: [3] unit vector towards the light (z < 0 is the camera's side). ambient, rim: scalars 0..1;
    rim darkens a surface that is seen edge-on."""

    way: jax.Array
    ambient: jax.Array
    rim: jax.Array


def pixel_centres(size_px: int, margin_px: int = 0) -> tuple[jax.Array, jax.Array]:
    """x [1, W] and y [H, 1] of pixel centres in px, of an image with `margin_px` more on every side."""
    line = jnp.arange(-margin_px, size_px + margin_px, dtype=jnp.float32) + 0.5
    return line[None, :], line[:, None]


def far_first(strokes: Strokes) -> Strokes:
    """Strokes in the order of compositing: by decreasing depth of their middle."""
    order = jnp.argsort(-(strokes.start[:, 2] + strokes.end[:, 2]))
    return jax.tree.map(lambda field: field[order], strokes)


def composite(
    background: jax.Array, strokes: Strokes, light: Light, edge_px: jax.Array, margin_px: int
) -> jax.Array:
    """Draws the strokes, in their order, over a background.

    Args:
      background: [H, H] grey, `margin_px` wider than the image on every side.
      strokes: see Strokes; the loop over them is unrolled.
      light: one distant light (Lambert's law with an ambient part).
      edge_px: scalar, width of the anti-aliased edge.
      margin_px: static.

    Returns:
      [H, H] grey, not clipped.
    """
    x, y = pixel_centres(background.shape[0] - 2 * margin_px, margin_px)
    step = strokes.end - strokes.start
    along = step[:, :2] / jnp.maximum(jnp.sum(step[:, :2] ** 2, axis=1, keepdims=True), 1e-3)
    taper = strokes.end_radius - strokes.start_radius
    inverse = 1.0 / strokes.start_radius  # 1 / radius runs linearly too: no division at the pixels
    inverse_taper = 1.0 / strokes.end_radius - inverse
    sharp = 1.0 / strokes.blend
    grade = 1.0 / edge_px
    reach_px = 0.75 * background.shape[0]  # shadows fall on the hand itself, not on what is far behind
    broad = (1.0 - strokes.round) * jnp.sum(strokes.facing * light.way[None, :], axis=1)
    dim = light.rim * strokes.round
    image, depth = background, jnp.full_like(background, FAR_PX)
    for k in range(strokes.albedo.shape[0]):
        from_x, from_y = x - strokes.start[k, 0], y - strokes.start[k, 1]
        part = jnp.clip(from_x * along[k, 0] + from_y * along[k, 1], 0.0, 1.0)
        radius = strokes.start_radius[k] + part * taper[k]
        shrink = inverse[k] + part * inverse_taper[k]
        normal_x = (from_x - part * step[k, 0]) * shrink
        normal_y = (from_y - part * step[k, 1]) * shrink
        facing_2 = 1.0 - (normal_x * normal_x + normal_y * normal_y)
        facing = jnp.sqrt(jnp.maximum(facing_2, 0.0))
        inside_px = 0.5 * radius * facing_2  # signed distance to the outline, first order
        here = strokes.start[k, 2] + part * step[k, 2] - radius * facing
        gap = depth - here
        cover = jnp.clip(inside_px * grade + 0.5, 0.0, 1.0) * jnp.clip(gap * sharp[k] + 0.5, 0.0, 1.0)
        towards = light.way[0] * normal_x + light.way[1] * normal_y - light.way[2] * facing
        lambert = jnp.maximum(strokes.round[k] * towards + broad[k], 0.0)
        shade = (light.ambient + (1.0 - light.ambient) * lambert) * (1.0 - dim[k] * (1.0 - facing))
        grey = strokes.albedo[k] * (1.0 + strokes.lit[k] * (shade - 1.0))
        near = jnp.clip(1.0 + 1.5 * facing_2, 0.0, 1.0) * jnp.clip(gap * shrink - 1.0, 0.0, 1.0)
        image = image * (1.0 - jnp.where(gap < reach_px, strokes.shadow[k] * near, 0.0))
        image = image + cover * (grey - image)
        depth = depth + cover * (here - depth)
    return image


def waves(
    frequency: jax.Array, phase: jax.Array, amplitude: jax.Array, size_px: int, margin_px: int
) -> jax.Array:
    """Smooth clutter: the sum of M plane waves.

    Args:
      frequency: [M, 2] cycles per image in x and y; phase: [M] rad; amplitude: [M].

    Returns:
      [size_px + 2 margin_px] * 2.
    """
    x, y = pixel_centres(size_px, margin_px)
    scale = 2.0 * jnp.pi / size_px
    across = x * frequency[:, :1] * scale + phase[:, None]
    down = y.T * frequency[:, 1:] * scale
    rows = jnp.concatenate([jnp.cos(down), -jnp.sin(down)])
    columns = jnp.concatenate([jnp.cos(across), jnp.sin(across)]) * jnp.concatenate([amplitude] * 2)[:, None]
    return jnp.einsum("my,mx->yx", rows, columns, precision="highest")  # cos(a + b), without a cosine a pixel


def blur(image: jax.Array, sigma_px: jax.Array) -> jax.Array:
    """Gaussian blur with five taps each way: [H, H] -> [H - 4, H - 4], sigma of x and y [2] in px."""
    taps = jnp.exp(-0.5 * (jnp.arange(-2.0, 3.0)[None, :] / jnp.maximum(sigma_px, 0.05)[:, None]) ** 2)
    taps = taps / jnp.sum(taps, axis=1, keepdims=True)
    inner = image.shape[0] - 4
    across = sum((taps[0, i] * image[:, i : i + inner] for i in range(5)), jnp.zeros((inner + 4, inner)))
    return sum((taps[1, i] * across[i : i + inner] for i in range(5)), jnp.zeros((inner, inner)))


def sensor_noise(key: jax.Array, size_px: int) -> jax.Array:
    """Noise [size_px, size_px] of mean 0 and variance 1, nearly normal: four random bytes a pixel, summed."""
    bits = jax.random.bits(key, (size_px, size_px), jnp.uint32)
    total = sum(((bits >> shift) & 0xFF).astype(jnp.int32) for shift in (0, 8, 16, 24))
    return (jnp.asarray(total, jnp.float32) - 510.0) * (1.0 / 147.8)
