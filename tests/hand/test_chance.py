"""Numbers are shared out whole and in order, and become the distributions they are said to become."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.hand.chance import bell, between, draw, share


def test_draw_stays_inside_the_open_interval_and_follows_its_key():
    u = draw(jax.random.key(1), 4096)
    assert 0 < float(u.min()) < float(u.max()) < 1
    np.testing.assert_array_equal(u, draw(jax.random.key(1), 4096))
    assert not np.array_equal(u, draw(jax.random.key(2), 4096))


def test_share_is_a_split_in_order():
    a, b, c = share(jnp.arange(7.0), (), (2, 2), (2,))
    assert float(a) == 0
    np.testing.assert_array_equal(b, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(c, [5, 6])


@pytest.mark.parametrize("count", [6, 8])
def test_share_wants_exactly_its_numbers(count):
    with pytest.raises(ValueError, match="need 7 numbers"):
        share(jnp.arange(float(count)), (), (2, 2), (2,))


def test_between_and_bell_map_quantiles():
    np.testing.assert_allclose(between(jnp.asarray([0.0, 0.5, 1.0]), -2.0, 4.0), [-2, 1, 4])
    quantiles = jnp.asarray([0.02275013, 0.15865525, 0.5, 0.84134475, 0.97724987])
    np.testing.assert_allclose(bell(quantiles), [-2, -1, 0, 1, 2], atol=1e-4)
    assert np.isfinite(bell(draw(jax.random.key(0), 4096))).all()
    assert np.isfinite(bell(jnp.asarray([1e-7, 1 - 2.0**-23]))).all()
