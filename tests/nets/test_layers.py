"""Units against the formulas: batch norm, its moving averages, ReLU6, the residual, the marks of sites."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.nets import NORM_EPSILON, Block
from research.nets import formulation as fm
from research.nets.layers import HandModule, InvertedResidual, Site, Unit
from tests.nets.samples import NET, weights


def random(shape: tuple[int, ...], seed: int = 0) -> jax.Array:
    """Normal numbers of standard deviation 3, so that both ends of ReLU6 are reached."""
    return jnp.asarray(3.0 * np.random.default_rng(seed).normal(size=shape), jnp.float32)


def variables(module: Any, x: jax.Array) -> dict:
    """Random variables of a module."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, False))
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda s: jnp.asarray(rng.uniform(0.2, 1.5, s.shape), jnp.float32), shapes)


def normed(y: np.ndarray, mean: np.ndarray, var: np.ndarray, norm: dict) -> np.ndarray:
    """Batch norm written out; vectors are [C]."""
    unit = (y - mean) / np.sqrt(var + NORM_EPSILON)
    return unit * np.asarray(norm["scale"]) + np.asarray(norm["bias"])


@pytest.mark.parametrize("kind", ["conv", "depthwise"])
@pytest.mark.parametrize("act", [True, False])
def test_a_unit_is_convolution_norm_and_relu6(kind: str, act: bool) -> None:
    x = random((2, 5, 4, 3))
    module = Unit(kind, 3, 3, 2, act=act)
    found = variables(module, x)
    y = np.asarray(
        {"conv": fm.conv, "depthwise": fm.depthwise}[kind](x, found["params"]["kernel"], 2, "canonical")
    )
    norm, stats = found["params"]["norm"], found["batch_stats"]["norm"]
    expected = normed(y, np.asarray(stats["mean"]), np.asarray(stats["var"]), norm)
    expected = np.clip(expected, 0.0, 6.0) if act else expected
    np.testing.assert_allclose(module.apply(found, x, False), expected, rtol=1e-4, atol=1e-4)
    assert (expected.min() < 0.0) == (not act)

    out, new = module.apply(found, x, True, mutable=["batch_stats"])
    mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2))
    batch = normed(y, mean, var, norm)
    np.testing.assert_allclose(out, np.clip(batch, 0.0, 6.0) if act else batch, rtol=1e-4, atol=1e-4)
    for name, seen in (("mean", mean), ("var", var)):
        old, moved = stats[name], new["batch_stats"]["norm"][name]
        np.testing.assert_allclose(moved, 0.95 * np.asarray(old) + 0.05 * seen, rtol=1e-4, atol=1e-4)


def test_a_folded_unit_has_a_bias_and_no_statistics() -> None:
    x = random((1, 4, 4, 2))
    module = Unit("conv", 5, norm=False)
    found = variables(module, x)
    assert set(found) == {"params"}
    assert set(found["params"]) == {"kernel", "bias"}
    y = fm.conv(x, found["params"]["kernel"], 1, "canonical") + found["params"]["bias"][None, None, None, :]
    np.testing.assert_allclose(module.apply(found, x, True), np.clip(y, 0.0, 6.0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("block", "adds"), [(Block(4, 3), True), (Block(4, 3, 3, 2), False), (Block(4, 2), False)]
)
def test_the_residual_stands_where_shapes_allow_it(block: Block, adds: bool) -> None:
    x = random((1, 4, 4, 3))
    module = InvertedResidual(block, norm=True, formulation="canonical")
    found = variables(module, x)
    silent = jax.tree.map(jnp.zeros_like, found["params"]["project"])
    out = module.apply({**found, "params": {**found["params"], "project": silent}}, x, False)
    np.testing.assert_array_equal(out, np.asarray(x) if adds else np.zeros(out.shape))


@pytest.mark.parametrize(("kind", "size", "fan_in"), [("conv", 1, 8), ("depthwise", 3, 9)])
def test_fresh_kernels_keep_the_variance_of_relu_layers(kind: str, size: int, fan_in: int) -> None:
    width = 8 if kind == "conv" else 256
    module = Unit(kind, 256, size, norm=False)
    kernel = module.init(jax.random.key(0), jnp.zeros((1, 3, 3, width)), False)["params"]["kernel"]
    assert float(jnp.std(kernel)) == pytest.approx((2.0 / fan_in) ** 0.5, rel=0.1)


def test_a_site_is_the_identity_with_a_name() -> None:
    x = random((2, 3))
    np.testing.assert_array_equal(Site("here").apply({}, x), x)
    (equation,) = jax.make_jaxpr(lambda x: Site("here").apply({}, x))(x).jaxpr.eqns
    assert (equation.primitive.name, equation.params["name"]) == ("name", "here")


def test_the_network_gives_flat_offsets() -> None:
    params, norm_stats = weights(NET)
    x = jnp.ones((2, 9, 9, 1))
    out = HandModule(NET, "canonical").apply({"params": params, "batch_stats": norm_stats}, x, False)
    assert out.shape == (2, 42)
