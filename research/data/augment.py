"""What changes a recorded crop from step to step: place, turn, size, mirror, light and noise, all inside jit."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from research.data.sensor import sensor_noise
from research.hand.chance import bell, between, draw, share

_NUMBERS = 22
_BLACK = 0.7


@dataclass(frozen=True)
class Augment:
    """How far crops vary.

    fill: least and most of the crop's side that the box of the joints takes. shift: standard deviation of its centre,
    in crops. roll_deg: largest turn in the image. mirror: share of crops mirrored (a left hand becomes a right one).
    light: how strongly gain, gamma, offset and slope of the brightness vary (1: as the renders). noise: most standard
    deviation of the sensor's noise. framed: share of crops that reach beyond their photograph, which ends there in
    black or another grey.
    """

    fill: tuple[float, float] = (0.5, 0.8)
    shift: float = 0.04
    roll_deg: float = 40.0
    mirror: float = 0.5
    light: float = 1.0
    noise: float = 0.04
    framed: float = 0.0


def sample(picture: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Bilinear values of `picture [H,W]` at fractional pixel indices `x`, `y` (0: centre of the first); edges go on."""
    height, width = picture.shape
    x, y = jnp.clip(x, 0.0, width - 1.0), jnp.clip(y, 0.0, height - 1.0)
    left, upper = (jnp.minimum(jnp.floor(at), size - 2) for at, size in ((x, width), (y, height)))
    across, down = x - left, y - upper
    first = upper.astype(jnp.int32) * width + left.astype(jnp.int32)
    flat = picture.reshape(-1)
    above = flat[first] * (1 - across) + flat[first + 1] * across
    below = flat[first + width] * (1 - across) + flat[first + width + 1] * across
    return above * (1 - down) + below * down


def lit(image: jax.Array, u: jax.Array, light: float) -> jax.Array:
    """`image [S,S]` under a gain, gamma, offset and slope drawn from five uniform numbers `u`."""
    u_gain, u_gamma, u_offset, u_slope = share(u, (), (), (), (2,))
    at = (jnp.arange(image.shape[0]) + 0.5) / image.shape[0] - 0.5
    tilt = 0.6 * light * (u_slope - 0.5)
    slope = 1.0 + tilt[0] * at[None, :] + tilt[1] * at[:, None]
    raised = jnp.clip(image * slope * jnp.exp(0.18 * light * bell(u_gain)), 1e-3, 1.0)
    return raised ** jnp.exp(0.2 * light * bell(u_gamma)) + 0.08 * light * bell(u_offset)


def framed(image: jax.Array, u: jax.Array) -> jax.Array:
    """`image [S,S]` with some of its sides blank, up to a third of it each, by ten uniform numbers `u`."""
    u_deep, u_side, u_black, u_grey = share(u, (4,), (4,), (), ())
    deep = 0.33 * u_deep * (u_side < 0.6)
    at = (jnp.arange(image.shape[0]) + 0.5) / image.shape[0]
    x, y = at[None, :], at[:, None]
    inside = (x > deep[0]) & (x < 1 - deep[1]) & (y > deep[2]) & (y < 1 - deep[3])
    return jnp.where(inside, image, jnp.where(u_black < _BLACK, 0.0, u_grey))


def varied(
    spec: Augment, size_px: int, picture: jax.Array, keypoints: jax.Array, key: jax.Array
) -> dict[str, jax.Array]:
    """One draw of a stored crop: `picture [R,R]` bytes, `keypoints [21,2]` in fractions of it.

    Returns `image [size_px,size_px]` in 0..1 and its `keypoints [21,2]`: the same map moves both.
    """
    k_numbers, k_noise = jax.random.split(key)
    u_fill, u_shift, u_roll, u_mirror, u_light, u_noise, u_cut, u_frame = share(
        draw(k_numbers, _NUMBERS), (), (2,), (), (), (5,), (), (10,), ()
    )
    low, high = jnp.min(keypoints, axis=0), jnp.max(keypoints, axis=0)
    scale = between(u_fill, *spec.fill) / jnp.maximum(jnp.max(high - low), 1e-3)  # crops a stored picture
    angle = jnp.deg2rad(between(u_roll, -spec.roll_deg, spec.roll_deg))
    flip = jnp.where(u_mirror < spec.mirror, -1.0, 1.0)
    turn = jnp.stack([jnp.cos(angle), -jnp.sin(angle), jnp.sin(angle), jnp.cos(angle)]).reshape(2, 2)
    forth = scale * turn * jnp.stack([flip, jnp.ones(())])[None, :]
    centre, place = (low + high) / 2, 0.5 + spec.shift * bell(u_shift)
    at = (jnp.arange(size_px) + 0.5) / size_px
    x, y = jnp.meshgrid(at - place[0], at - place[1])
    back = jnp.stack([turn[0, 0] * flip, turn[1, 0] * flip, turn[0, 1], turn[1, 1]]).reshape(2, 2) / scale
    across = (back[0, 0] * x + back[0, 1] * y + centre[0]) * picture.shape[1] - 0.5
    down = (back[1, 0] * x + back[1, 1] * y + centre[1]) * picture.shape[0] - 0.5
    image = lit(sample(picture.astype(jnp.float32) / 255.0, across, down), u_light, spec.light)
    image = jnp.clip(image + spec.noise * u_noise**2 * sensor_noise(k_noise, size_px), 0.0, 1.0)
    image = jnp.where(u_frame < spec.framed, framed(image, u_cut), image)
    moved = jnp.einsum("ij,kj->ki", forth, keypoints - centre[None, :]) + place[None, :]
    return {"image": image, "keypoints": moved}
