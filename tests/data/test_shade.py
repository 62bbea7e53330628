"""Skin is lit as light is: brighter under more of it, darker in shadow, never negative, and people differ."""

import jax
import jax.numpy as jnp
import numpy as np

from research.data.shade import LIGHT_NUMBERS, SKIN_NUMBERS, sample_light, sample_skin


def test_people_differ_within_what_skin_reflects() -> None:
    skins = jax.vmap(sample_skin)(jax.random.uniform(jax.random.key(0), (300, SKIN_NUMBERS)))
    albedo = np.asarray(skins.skin)
    assert 0.06 <= albedo.min() < 0.12
    assert 0.5 < albedo.max() <= 0.62
    assert np.corrcoef(albedo, np.asarray(skins.palm))[0, 1] < -0.3  # palms are lighter than dark backs
    assert (np.asarray(skins.gloss) >= 0).all()


def test_lights_are_unit_ways_with_powers_that_are_not_negative() -> None:
    lights = jax.vmap(lambda u: sample_light(u, jnp.asarray(0.2)))(
        jax.random.uniform(jax.random.key(1), (200, LIGHT_NUMBERS))
    )
    np.testing.assert_allclose(np.linalg.norm(np.asarray(lights.ways), axis=-1), 1.0, rtol=1e-5)
    assert (np.asarray(lights.powers) >= 0).all()
    assert ((np.asarray(lights.shadow) >= 0) & (np.asarray(lights.shadow) <= 1)).all()
