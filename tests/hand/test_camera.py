"""Projection against numpy, and crops against cutting the picture by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.hand.camera import Camera, bounding_square, crop, project, to_unit

POINTS = np.random.default_rng(0).uniform((-90, -90, 250), (90, 90, 700), (21, 3)).astype(np.float32)
CAMERA = Camera(jnp.asarray(480.0), jnp.asarray([320.0, 240.0]))


def test_projection_is_the_pinhole_of_the_textbook():
    matrix = np.asarray([[480.0, 0, 320], [0, 480, 240], [0, 0, 1]])
    homogeneous = POINTS.astype(np.float64) @ matrix.T
    np.testing.assert_allclose(
        project(jnp.asarray(POINTS), CAMERA), homogeneous[:, :2] / homogeneous[:, 2:], rtol=1e-5
    )


def test_points_at_or_behind_the_camera_stay_finite():
    near = project(jnp.asarray([[10.0, 0.0, 0.0], [10.0, 0.0, -50.0]]), CAMERA)
    np.testing.assert_allclose(near, [[440, 240], [440, 240]])


@settings(max_examples=15, deadline=None)
@given(x=st.floats(0, 640), y=st.floats(0, 480), side=st.floats(20, 900), size=st.sampled_from([16, 64, 96]))
def test_a_crop_is_the_same_picture_moved_and_zoomed(x, y, side, size):
    whole = np.asarray(project(jnp.asarray(POINTS), CAMERA))
    cut = crop(CAMERA, jnp.asarray([x, y], jnp.float32), jnp.asarray(side, jnp.float32), size)
    by_hand = (whole - (np.asarray([x, y]) - side / 2)) / side
    found = to_unit(project(jnp.asarray(POINTS), cut), size)
    np.testing.assert_allclose(found, by_hand, atol=2e-3 * max(1, 100 / side))


def test_bounding_square_has_the_longer_side():
    centre, side = bounding_square(jnp.asarray([[1.0, 10.0], [5.0, 12.0], [2.0, 11.0]]))
    np.testing.assert_allclose(centre, [3, 11])
    assert float(side) == 4


def test_a_wrong_shape_is_one_clear_error():
    with pytest.raises(ValueError, match=r"\[N, 3\], got \[21, 2\]"):
        project(jnp.zeros((21, 2)), CAMERA)
