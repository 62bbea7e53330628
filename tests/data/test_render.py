"""The renderer against geometry: where a stroke covers, what hides what, how light falls, blur and noise."""

import jax
import jax.numpy as jnp
import numpy as np

from research.data.render import (
    FAR_PX,
    Light,
    Strokes,
    blur,
    composite,
    far_first,
    pixel_centres,
    sensor_noise,
    waves,
)

SIZE = 32
FRONT = Light(jnp.asarray([0.0, 0.0, -1.0]), jnp.asarray(0.2), jnp.asarray(0.0))


def strokes(*rows, lit=0.0):
    """Strokes from rows (start, end, start radius, end radius, albedo)."""
    start, end, first, last, albedo = (jnp.asarray(column, jnp.float32) for column in zip(*rows, strict=True))
    n = len(rows)
    plain = [jnp.full(n, 1.0), jnp.full(n, lit), jnp.ones(n), jnp.zeros((n, 3)), jnp.zeros(n)]
    return Strokes(start, end, first, last, albedo, *plain)


@jax.jit
def draw(drawn, light=FRONT):
    return composite(jnp.zeros((SIZE, SIZE)), drawn, light, jnp.asarray(1.0), 0)


def test_pixel_centres_are_at_half_pixels():
    x, y = pixel_centres(4, 1)
    np.testing.assert_array_equal(x[0], [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5])
    np.testing.assert_array_equal(y[:, 0], x[0])


def test_a_stroke_covers_its_capsule_with_a_soft_edge():
    image = np.asarray(draw(strokes(((8, 16, 0), (24, 16, 0), 5, 5, 1.0))))
    x, y = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
    inside = 5 - np.hypot(x - np.clip(x, 8, 24), y - 16)
    assert (image[inside > 0.7] == 1).all()
    assert (image[inside < -0.7] == 0).all()
    assert ((image > 0.05) & (image < 0.95)).sum() > 10  # anti-aliased
    exact = 16 * 10 + np.pi * 25
    assert abs(image.sum() - exact) < 0.02 * exact


def test_a_stroke_tapers_between_its_radii():
    image = np.asarray(draw(strokes(((4, 16, 0), (28, 16, 0), 2, 6, 1.0))))
    widths = image.sum(axis=0)
    np.testing.assert_allclose(widths[[4, 27]], [4, 12], atol=1.2)
    assert (np.diff(widths[6:26]) > -0.3).all()


def test_the_nearer_stroke_hides_the_other_in_any_order():
    near = ((8, 16, -50), (24, 16, -50), 4, 4, 1.0)
    far = ((16, 8, 0), (16, 24, 0), 4, 4, 0.5)
    for drawn in (strokes(near, far), strokes(far, near)):
        image = np.asarray(draw(drawn))
        assert image[16, 16] == 1
        assert image[10, 16] == 0.5
    ordered = far_first(strokes(near, far))
    np.testing.assert_array_equal(ordered.start[:, 2], [0, -50])
    np.testing.assert_array_equal(ordered.albedo, [0.5, 1.0])
    assert FAR_PX > 1000


def test_strokes_that_cross_in_depth_each_win_their_half():
    image = np.asarray(
        draw(strokes(((4, 16, -40), (28, 16, 40), 4, 4, 1.0), ((4, 16, 40), (28, 16, -40), 4, 4, 0.5)))
    )
    assert image[16, 6] == 1
    assert image[16, 25] == 0.5


def test_light_follows_lamberts_law_on_a_ball():
    ball = strokes(((16, 16, 0), (16, 16, 0), 10, 10, 0.8), lit=1.0)
    way = np.asarray([0.6, 0.0, -0.8])
    image = np.asarray(draw(ball, FRONT._replace(way=jnp.asarray(way))))
    for x, y in ((16, 16), (20, 16), (12, 18)):
        across, down = (x + 0.5 - 16) / 10, (y + 0.5 - 16) / 10
        normal = np.asarray([across, down, -np.sqrt(1 - across**2 - down**2)])
        expected = 0.8 * (0.2 + 0.8 * max(0, normal @ way))
        np.testing.assert_allclose(image[y, x], expected, rtol=1e-4)


def test_a_shadow_falls_close_behind_but_not_on_the_far_wall():
    hand = ((16, 4, 0), (16, 28, 0), 9, 9, 1.0)
    finger = ((12, 16, -20), (20, 16, -20), 3, 3, 1.0)
    drawn = strokes(hand, finger)._replace(shadow=jnp.asarray([0.0, 0.5]))
    image = np.asarray(draw(drawn))
    assert image[19, 16] < 0.95
    assert image[26, 16] == 1
    wall = np.asarray(composite(jnp.ones((SIZE, SIZE)), drawn, FRONT, jnp.asarray(1.0), 0))
    np.testing.assert_allclose(wall[:, 28:], 1.0)


def test_waves_are_a_sum_of_cosines():
    frequency, phase, amplitude = jnp.asarray([[1.0, 2.0], [3.0, -0.5]]), jnp.asarray([0.3, 2.0]), [0.5, 0.2]
    image = waves(frequency, phase, jnp.asarray(amplitude), 16, 1)
    x, y = np.meshgrid(np.arange(-1, 17) + 0.5, np.arange(-1, 17) + 0.5)
    by_hand = 0.5 * np.cos(2 * np.pi / 16 * (x + 2 * y) + 0.3)
    by_hand += 0.2 * np.cos(2 * np.pi / 16 * (3 * x - 0.5 * y) + 2.0)
    np.testing.assert_allclose(image, by_hand, atol=1e-5)


def test_blur_against_numpy_and_it_keeps_a_constant():
    image = np.random.default_rng(0).uniform(size=(12, 12)).astype(np.float32)
    sigma = np.asarray([0.6, 1.1])
    taps = np.exp(-0.5 * (np.arange(-2, 3) / sigma[:, None]) ** 2)
    taps /= taps.sum(axis=1, keepdims=True)
    rows = np.stack([np.convolve(row, taps[0], "valid") for row in image])
    both = np.stack([np.convolve(column, taps[1], "valid") for column in rows.T]).T
    np.testing.assert_allclose(blur(jnp.asarray(image), jnp.asarray(sigma)), both, atol=1e-6)
    np.testing.assert_allclose(blur(jnp.full((8, 8), 0.4), jnp.asarray([0.2, 1.0])), 0.4, rtol=1e-5)


def test_sensor_noise_is_standard_and_nearly_normal():
    noise = np.asarray(sensor_noise(jax.random.key(0), 128))
    assert abs(noise.mean()) < 0.03
    assert abs(noise.std() - 1) < 0.03
    assert 0.94 < (np.abs(noise) < 2).mean() < 0.97
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.03
