"""Fake quantisation: values on the grid, zeros kept, gradients inside the range, ranges as they are seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research import nets
from research.pytrees import flatten
from research.squeeze import FakeQuant
from research.squeeze.quant import fake_quant_range, fake_quant_weights
from tests.squeeze.samples import KEY, NET, NOW, context, images, setting, weights

FLOATS = st.floats(-8, 8, width=32, allow_subnormal=False)
WEIGHTS = jax.jit(fake_quant_weights, static_argnums=1)
RANGE = jax.jit(fake_quant_range, static_argnums=3)
PARAMS, STATS = weights()


@given(st.lists(FLOATS, min_size=12, max_size=12), st.sampled_from([2, 4, 8]))
def test_weights_lie_on_the_grid_of_their_channel(values: list[float], bits: int) -> None:
    kernel = np.asarray(values, np.float32).reshape(1, 2, 2, 3)
    rounded = np.asarray(WEIGHTS(kernel, bits))
    top = 2 ** (bits - 1) - 1
    for channel in range(3):
        step = np.abs(kernel[..., channel]).max() / top
        codes = rounded[..., channel] / max(step, 1e-12)
        np.testing.assert_allclose(codes, np.round(codes), atol=1e-4)
        assert np.abs(codes).max() <= top + 1e-4
        np.testing.assert_allclose(rounded[..., channel], kernel[..., channel], atol=0.5001 * step + 1e-12)
    assert not rounded[kernel == 0.0].any()
    np.testing.assert_allclose(WEIGHTS(rounded, bits), rounded, rtol=1e-5)
    np.testing.assert_array_equal(WEIGHTS(-kernel, bits), -rounded)


def test_a_channel_keeps_its_largest_weight_and_its_own_scale() -> None:
    kernel = np.array([[127.0, 0.127], [-60.4, 0.0604]], np.float32)
    np.testing.assert_allclose(WEIGHTS(kernel, 8), [[127.0, 0.127], [-60.0, 0.060]], rtol=1e-5)
    np.testing.assert_array_equal(WEIGHTS(np.zeros((3, 2), np.float32), 8), np.zeros((3, 2)))


def test_the_gradient_of_weights_passes_unchanged() -> None:
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 2, 4)), jnp.float32)
    pull = jnp.asarray(np.random.default_rng(1).normal(size=kernel.shape), jnp.float32)
    grad = jax.grad(lambda k: jnp.sum(pull * fake_quant_weights(k, 4)))(kernel)
    np.testing.assert_array_equal(grad, pull)


@given(st.lists(FLOATS, min_size=6, max_size=6), FLOATS, FLOATS, st.sampled_from([4, 8]))
def test_activations_lie_on_an_affine_grid_that_holds_zero(
    values: list[float], a: float, b: float, bits: int
) -> None:
    low, high = min(a, b, -0.125), max(a, b)
    x = np.asarray([*values, 0.0], np.float32)
    rounded = np.asarray(RANGE(x, low, high, bits))
    low, high, top = min(low, 0.0), max(high, 0.0), 2**bits - 1
    step = (high - low) / top
    codes = rounded / step
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-3)
    assert codes.max() - codes.min() <= top + 1e-3
    assert rounded[-1] == 0.0
    inside = (x >= low + step) & (x <= high - step)
    np.testing.assert_allclose(rounded[inside], x[inside], atol=0.501 * step)
    assert rounded.min() >= low - 0.501 * step
    assert rounded.max() <= high + 0.501 * step
    np.testing.assert_allclose(RANGE(rounded, low, high, bits), rounded, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 3.0), (-3.0, -1.0)])
def test_the_gradient_of_activations_is_that_of_a_clip(low: float, high: float) -> None:
    x = jnp.asarray([-9.0, -3.2, -2.0, -0.5, 0.25, 2.0, 3.2, 9.0])
    grad = jax.vmap(jax.grad(lambda x: fake_quant_range(x, jnp.asarray(low), jnp.asarray(high), 8)))(x)
    np.testing.assert_array_equal(grad, (x > min(low, 0.0) - 0.1) & (x < max(high, 0.0) + 0.1))


def test_the_range_is_moved_onto_the_grid() -> None:
    low, high = jnp.asarray(-0.7), jnp.asarray(2.3)  # four values a step of 1 apart: -1, 0, 1, 2
    fn = jax.value_and_grad(lambda x: fake_quant_range(x, low, high, 2))
    found = [tuple(map(float, fn(x))) for x in (-9.0, -0.9, -0.4, 1.6, 2.2, 9.0)]
    expected = [(-1.0, 0.0), (-1.0, 1.0), (0.0, 1.0), (2.0, 1.0), (2.0, 0.0), (2.0, 0.0)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_view_rounds_the_kernels_matched() -> None:
    transform = FakeQuant(bits=4, where=("b0/*/kernel",)).build(setting())
    learned, state = transform.init(KEY, PARAMS)
    seen = flatten(transform.view(PARAMS, learned, state, NOW, KEY))
    assert learned == {}
    for path, leaf in flatten(PARAMS).items():
        matched = path.startswith("b0/") and path.endswith("/kernel")
        np.testing.assert_array_equal(seen[path], fake_quant_weights(leaf, 4) if matched else leaf)
        assert np.array_equal(seen[path], leaf) == (not matched)


def test_ranges_are_tracked_and_then_change_the_forward() -> None:
    link = FakeQuant(bits=3, momentum=0.75, sites=("stem", "b?/add"))
    transform = link.build(setting())
    _, state = transform.init(KEY, PARAMS)
    assert set(state) == {"stem", "b0/add"}

    def step(state: dict, seed: int) -> tuple[dict, nets.Forward]:
        sites = transform.sites({}, state, NOW)
        out = nets.forward(NET, PARAMS, STATS, images(seed=seed), sites=sites)
        return transform.update(state, context(taps=out.taps, state=state)), out

    plain = nets.forward(NET, PARAMS, STATS, images(seed=1))
    state, first = step(state, 1)
    np.testing.assert_array_equal(first.keypoints, plain.keypoints)  # nothing seen yet: nothing rounded
    for site in state:
        np.testing.assert_array_equal(state[site], [plain.taps[site].min(), plain.taps[site].max()])
    ranges = dict(state)
    state, second = step(state, 2)
    fresh = nets.forward(NET, PARAMS, STATS, images(seed=2))
    np.testing.assert_array_equal(
        second.taps["stem"], fresh.taps["stem"]
    )  # taps are from before the rounding
    assert not np.allclose(second.keypoints, fresh.keypoints)
    by_hand = {s: lambda x, r=r: fake_quant_range(x, r[0], r[1], 3) for s, r in ranges.items()}
    expected = nets.forward(NET, PARAMS, STATS, images(seed=2), sites=by_hand)
    np.testing.assert_array_equal(second.keypoints, expected.keypoints)
    for site in state:
        seen = np.array([second.taps[site].min(), second.taps[site].max()])
        np.testing.assert_allclose(state[site], 0.75 * np.asarray(ranges[site]) + 0.25 * seen, rtol=1e-5)


def test_more_bits_are_closer() -> None:
    plain = nets.forward(NET, PARAMS, STATS, images())
    state = {site: jnp.stack([tap.min(), tap.max()]) for site, tap in plain.taps.items()}
    errors = []
    for bits in (4, 6, 8, 12):
        transform = FakeQuant(bits=bits).build(setting())
        params = transform.view(PARAMS, {}, state, NOW, KEY)
        out = nets.forward(NET, params, STATS, images(), sites=transform.sites({}, state, NOW))
        errors.append(float(jnp.abs(out.keypoints - plain.keypoints).max()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 * errors[0]
    assert errors[-1] > 0.0


@pytest.mark.parametrize(
    ("link", "says"),
    [
        (FakeQuant(where=("*/kernl",)), "quantisation rule '\\*/kernl' matches nothing"),
        (FakeQuant(sites=("b0/ad",)), "site rule 'b0/ad' matches nothing; did you mean 'b0/add'"),
    ],
)
def test_a_rule_that_matches_nothing_raises(link: FakeQuant, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        link.build(setting())
