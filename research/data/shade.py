"""The brightness of skin at every vertex: albedo, two lights, a soft highlight, shadows and nearness of other flesh."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.hand.chance import bell, between, share
from research.hand.surface import surface

SKIN_NUMBERS: int = 10 + 24
LIGHT_NUMBERS: int = 14


class Skin(NamedTuple):
    """Reflectances: skin, palm against back, nails, creases, knuckles, cloth; gloss, its exponent; mottling waves."""

    skin: jax.Array
    palm: jax.Array
    nail: jax.Array
    crease: jax.Array
    knuckle: jax.Array
    cloth: jax.Array
    gloss: jax.Array
    sharp: jax.Array
    mottle: jax.Array
    waves: jax.Array


class Light(NamedTuple):
    """Two lights `ways [2,3]` (unit, towards them) with `powers [2]`, light from all around (above, below) and how
    `soft` skin is to grazing light; `shadow` 0..1; `torch` 0..1: light from the camera itself, falling off."""

    ways: jax.Array
    powers: jax.Array
    around: jax.Array
    soft: jax.Array
    shadow: jax.Array
    torch: jax.Array


def sample_skin(u: jax.Array) -> Skin:
    """One person's skin from SKIN_NUMBERS uniform numbers; linear reflectance."""
    v, u_waves = share(u, (10,), (6, 4))
    skin = between(v[0], 0.0, 1.0) ** 0.7 * 0.55 + 0.06
    palm = 1.0 + between(v[1], 0.0, 0.9) * jnp.clip(0.45 - skin, 0, 1) + 0.1 * bell(v[1])
    return Skin(
        skin,
        palm,
        1.0 + between(v[2], -0.15, 0.45),
        between(v[3], 0.1, 0.6),
        between(v[4], -0.1, 0.35),
        between(v[5], 0.02, 0.8) ** 1.5,
        0.16 * v[6] ** 2,
        between(v[7], 6.0, 30.0),
        0.12 * v[8],
        u_waves,
    )


def sample_light(u: jax.Array, infrared: jax.Array) -> Light:
    """One lighting from LIGHT_NUMBERS uniform numbers; an infrared camera brings its own light."""
    u_key, u_fill, u_power, u_rest = share(u, (3,), (3,), (4,), (4,))

    def way(v: jax.Array, lean: tuple[float, float, float]) -> jax.Array:
        toward = bell(v) + jnp.asarray(lean)
        return toward / jnp.sqrt(jnp.sum(toward**2) + 1e-6)

    dim = jnp.where(infrared, 0.15, 1.0)
    powers = dim * jnp.stack([between(u_power[0], 0.4, 1.3), between(u_power[1], 0.0, 0.5)])
    ambient = between(u_power[2], 0.12, 0.65)
    tilt = between(u_power[3], 0.3, 1.0)
    return Light(
        jnp.stack([way(u_key, (0.0, -1.0, -0.7)), way(u_fill, (0.0, 0.0, -0.3))]),
        powers,
        dim * jnp.stack([ambient, ambient * tilt]),
        between(u_rest[0], 0.0, 0.35),
        between(u_rest[1], 0.2, 0.9),
        jnp.where(infrared, between(u_rest[2], 0.8, 1.8), jnp.where(u_rest[3] < 0.2, 0.5 * u_rest[2], 0.0)),
    )


def shade(
    points_mm: jax.Array, normals: jax.Array, cloth: jax.Array, balls_mm: jax.Array, size: jax.Array,
    skin: Skin, light: Light,
) -> jax.Array:  # fmt: skip
    """Linear brightness `[V]` of vertices in camera axes; `balls_mm [B,3]` is flesh that shadows, `size` its scale."""
    held = surface()
    arm = points_mm.shape[0] - len(held.rest_mm)

    def hand(values: np.ndarray) -> jax.Array:
        return jnp.pad(jnp.asarray(values), (0, arm))

    phase = skin.waves[:, 3] * 2 * np.pi
    mottle = jnp.sum(jnp.sin(held.rest_mm @ (bell(skin.waves[:, :3]) * 0.09).T + phase[None]), axis=1)
    palm = 1 + (skin.palm - 1) * held.palmar
    albedo = palm * (1 + (skin.nail - 1) * held.nail) * (1 - skin.crease * held.crease)
    albedo = albedo * (1 - skin.knuckle * held.knuckle) * (1 + skin.mottle * mottle)
    albedo = skin.skin * jnp.concatenate([albedo, jnp.ones(arm)])
    albedo = albedo + cloth * (skin.cloth - albedo)

    middle = jnp.mean(balls_mm, axis=0, keepdims=True)  # small numbers: differences of squares stay exact
    at, balls = points_mm - middle, balls_mm - middle
    radius = jnp.asarray(held.ball_mm)[:, None] * size
    other = jnp.asarray(np.concatenate([~held.near, np.zeros((arm, held.near.shape[1]), bool)]).T)

    def dot(a: jax.Array) -> jax.Array:
        return jnp.matmul(balls, a.T, precision="highest")  # [B,V]: sums over B vectorise

    distance2 = jnp.sum(at * at, 1)[None] + jnp.sum(balls * balls, 1)[:, None] - 2 * dot(at)
    distance2 = jnp.maximum(distance2, 1.0)
    rise = dot(normals) - jnp.sum(at * normals, axis=1)[None]
    hidden = jnp.maximum(rise, 0.0) * radius * radius * jax.lax.rsqrt(distance2) / distance2
    hidden = jnp.sum(jnp.where(other, jnp.minimum(hidden, 0.5), 0.0), axis=0)
    open_ = jnp.exp(-1.3 * hidden)
    towards = jnp.sum(balls * light.ways[:1], axis=1)[:, None] - jnp.sum(at * light.ways[:1], axis=1)[None]
    beside = jnp.sqrt(jnp.maximum(distance2 - towards * towards, 0.0))
    dark = jnp.clip((1.25 * radius - beside) / (0.6 * radius), 0.0, 1.0) * (towards > 0.4 * radius)
    lit = 1 - light.shadow * jnp.max(jnp.where(other, dark, 0.0), axis=0)

    facing = normals @ light.ways.T  # [V,2]
    wrapped = jnp.maximum((facing + light.soft) / (1 + light.soft), 0.0) * light.powers[None]
    above = 0.5 - 0.5 * normals[:, 1]
    ambient = (light.around[1] + (light.around[0] - light.around[1]) * above) * open_
    reach = jnp.sqrt(jnp.sum(points_mm**2, axis=1, keepdims=True))
    view = -points_mm / reach
    seen = jnp.maximum(jnp.sum(normals * view, axis=1), 0.0)
    fall = (jnp.mean(reach) / reach[:, 0]) ** 2
    half = view + light.ways[:1]
    half = half / (jnp.sqrt(jnp.sum(half**2, axis=1, keepdims=True)) + 1e-6)
    gloss = jnp.maximum(jnp.sum(normals * half, axis=1), 1e-3) ** skin.sharp * light.powers[0] * lit
    total = wrapped[:, 0] * lit * (0.6 + 0.4 * open_) + wrapped[:, 1] * open_ + ambient
    total = total + light.torch * seen * fall * open_
    return albedo * total + skin.gloss * gloss * (1 - cloth)
