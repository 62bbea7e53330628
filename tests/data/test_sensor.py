"""The camera: its blur is a Gaussian's, its noise has the moments it says, and brightness keeps its order."""

import jax
import jax.numpy as jnp
import numpy as np

from research.data.sensor import SENSOR_NUMBERS, blurred, margin_px, picture, sample_sensor, sensor_noise

SIZE, MARGIN = 32, margin_px(32)


def test_blur_spreads_a_point_as_its_covariance_says_and_keeps_its_light() -> None:
    wide = SIZE + 2 * MARGIN
    point = jnp.zeros((wide, wide)).at[wide // 2, wide // 2].set(1.0)
    out = np.asarray(blurred(point, jnp.asarray([1 / 0.36, 0.0, 1 / 0.16]), MARGIN))
    np.testing.assert_allclose(out.sum(), 1.0, rtol=1e-5)
    at = np.arange(SIZE)
    across, down = out.sum(axis=0), out.sum(axis=1)
    spread = [float((line * (at - (line * at).sum()) ** 2).sum()) for line in (across, down)]
    assert 0.25 < spread[0] < 0.4  # of 0.36, cut at the margin and sampled
    assert spread[1] < spread[0] / 2
    flat = np.asarray(blurred(jnp.full((wide, wide), 0.7), jnp.asarray([1.0, 0.3, 2.0]), MARGIN))
    np.testing.assert_allclose(flat, 0.7, rtol=1e-5)


def test_noise_has_mean_0_and_variance_1() -> None:
    noise = np.asarray(sensor_noise(jax.random.key(0), 256))
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02


def test_pictures_lie_in_0_to_1_and_brighter_stays_brighter() -> None:
    wide = SIZE + 2 * MARGIN
    ramp = jnp.broadcast_to(jnp.linspace(0.05, 0.9, wide)[None, :], (wide, wide))

    @jax.jit
    def draw(u: jax.Array) -> jax.Array:
        level = sample_sensor(u, SIZE)._replace(tilt=jnp.zeros(2))
        return picture(ramp, level, jax.random.key(1), MARGIN)

    for seed in range(8):
        out = np.asarray(draw(jax.random.uniform(jax.random.key(seed), (SENSOR_NUMBERS,))))
        assert out.shape == (SIZE, SIZE)
        assert 0 <= out.min() < out.max() <= 1
        left, right = out[8:24, 6:12].mean(), out[8:24, 20:26].mean()
        assert right > left
