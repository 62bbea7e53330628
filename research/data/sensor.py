"""From light to a grey picture: blur of lens and motion, exposure, contrast, vignette and noise."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from research.hand.chance import bell, between

SENSOR_NUMBERS: int = 14


class Sensor(NamedTuple):
    """Inverse blur covariance's parts `blur [3]` (xx, xy, yy, per px^2), `level` (the mean brightness that the exposure
    aims at), `offset`, `gamma`, `contrast`, slope of the brightness `tilt [2]`, `vignette`, and the noise's standard
    deviations: `read`, and `shot` at full brightness."""

    blur: jax.Array
    level: jax.Array
    offset: jax.Array
    gamma: jax.Array
    contrast: jax.Array
    tilt: jax.Array
    vignette: jax.Array
    read: jax.Array
    shot: jax.Array


def margin_px(size_px: int) -> int:
    """How far the blur reaches."""
    return 2 if size_px < 80 else 3


def sample_sensor(u: jax.Array, size_px: int) -> Sensor:
    """One camera from SENSOR_NUMBERS uniform numbers."""
    v = u
    unit = max(1.0, size_px / 80)
    lens = (0.3 + 0.55 * v[0] ** 2) * unit
    motion = jnp.where(v[1] < 0.2, 1.3 * v[2], 0.0) * unit
    angle = jnp.pi * v[3]
    c, s = jnp.cos(angle), jnp.sin(angle)
    a, b = 1 / (lens**2 + motion**2), 1 / lens**2
    return Sensor(
        jnp.stack([a * c * c + b * s * s, (a - b) * c * s, a * s * s + b * c * c]),
        between(v[4], 0.28, 0.58),
        0.03 * bell(v[5]),
        jnp.exp(0.15 * bell(v[6])),
        between(v[7], -0.3, 1.0),
        0.25 * bell(v[8:10]),
        0.5 * v[10] ** 2,
        0.025 * v[11] ** 3,
        0.03 * v[12] ** 3,
    )


def picture(image: jax.Array, sensor: Sensor, key: jax.Array, margin: int) -> jax.Array:
    """A display-bright `image [S+2m,S+2m]` -> what the camera gives `[S,S]` in 0..1."""
    size = image.shape[0] - 2 * margin
    image = blurred(image, sensor.blur, margin)
    at = (jnp.arange(size) + 0.5) / size - 0.5
    x, y = at[None, :], at[:, None]
    slope = 1 + sensor.tilt[0] * x + sensor.tilt[1] * y - sensor.vignette * 2 * (x * x + y * y)
    gain = (sensor.level / jnp.maximum(jnp.mean(image), 0.02)) ** 0.7
    image = jnp.clip(image * slope * gain, 1e-3, 1.2)
    image = jnp.exp(sensor.gamma * jnp.log(image)) + sensor.offset
    image = image + sensor.contrast * image * (1 - image) * (image - 0.5) * 2
    grain = sensor_noise(key, size)
    return jnp.clip(image + grain * (sensor.read + sensor.shot * jnp.sqrt(jnp.maximum(image, 0))), 0.0, 1.0)


def blurred(image: jax.Array, inverse: jax.Array, margin: int) -> jax.Array:
    """A Gaussian blur of any direction, its inverse covariance's xx, xy, yy `[3]` per px^2, cut at `margin` px."""
    size = image.shape[0] - 2 * margin
    reach = range(-margin, margin + 1)
    taps = {
        (i, j): jnp.exp(-0.5 * (inverse[0] * j * j + 2 * inverse[1] * i * j + inverse[2] * i * i))
        for i in reach
        for j in reach
    }
    total = sum(taps.values(), jnp.zeros(()))
    out = jnp.zeros((size, size))
    for (i, j), tap in taps.items():
        out += tap * image[margin + i : margin + i + size, margin + j : margin + j + size]
    return out / total


def sensor_noise(key: jax.Array, size_px: int) -> jax.Array:
    """Noise [size_px, size_px] of mean 0 and variance 1, nearly normal: four random bytes a pixel, summed."""
    bits = jax.random.bits(key, (size_px, size_px), jnp.uint32)
    total = sum(((bits >> shift) & 0xFF).astype(jnp.int32) for shift in (0, 8, 16, 24))
    return (jnp.asarray(total, jnp.float32) - 510.0) * (1.0 / 147.8)
