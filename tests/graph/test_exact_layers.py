"""Layers against LiteRT's reference kernels, and the exactness of their float sums."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.graph.exact import compile_exact
from research.graph.exact_layers import Site, centred, layer, matmul, taps
from research.graph.ir import WEIGHTED, Node
from research.graph.program import Affine, IntegerWeights
from tests.graph.exact_cases import differing, program, random_inputs, random_program


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("op", [*WEIGHTED, "matmul"])
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_layers_are_litert(op: str, dtype: str, seed: int) -> None:
    made = random_program(op, dtype, seed)
    assert differing(made, random_inputs(made, seed)) == 0


@pytest.mark.parametrize(("dtype", "zero"), [("int8", -128), ("int16", 0)])
@pytest.mark.parametrize("op", ["conv", "dense", "depthwise"])
def test_large_sums_lose_nothing(op: str, dtype: str, zero: int) -> None:
    """Sums beyond 2^24, where float32 has gaps; the bias takes them back to a few hundred, so every unit shows."""
    kernel, shape = {
        "conv": ((1, 1, 4608, 3), (1, 1, 1, 4608)), "dense": ((4608, 3), (1, 4608)),
        "depthwise": ((15, 15, 1, 3), (1, 15, 15, 3)),
    }[op]  # fmt: skip
    rng, high = np.random.default_rng(0), 127 if dtype == "int8" else 32767
    weights = rng.choice(np.array([127, 126, 125], np.int8), kernel)
    x = np.repeat(rng.integers(high - 9, high + 1, shape).astype(dtype), 8, 0)
    x.reshape(8, -1)[np.arange(8), np.arange(8) * 70] -= np.arange(8).astype(dtype)  # one entry of each image
    terms = (x[0].astype(np.int64) - zero).reshape(*kernel[:-1], -1) * weights
    sums = terms.sum(tuple(range(terms.ndim - 1)))
    assert sums.min() > 2**24 or op == "depthwise"
    bias = (np.arange(3) - sums).astype(np.int32 if dtype == "int8" else np.int64)
    values = IntegerWeights(weights, np.array([1.0, 1.01, 0.99], np.float32), bias)
    node = Node(op, ("x",), "o", kernel="w", kernel_shape=kernel, bias="b")
    scales = {"x": Affine(1.0, zero, dtype), "o": Affine(8.0, 0, dtype)}
    made = program(node, {"x": shape}, scales, values=values)
    assert differing(made, [x]) == 0
    assert len(np.unique(np.asarray(compile_exact(made)(x)[0]))) > 4


def test_dense_and_conv_round_differently() -> None:
    """Times 3/8: a dense layer rounds halves away from zero, a 1x1 conv first 3/4 halves up, then the half of it."""
    values = IntegerWeights(np.ones((1, 1), np.int8), np.full(1, 0.375, np.float32), np.zeros(1, np.int32))
    x, got = np.arange(-128, 128).astype(np.int8), {}
    for op, kernel in (("dense", (1, 1)), ("conv", (1, 1, 1, 1))):
        node = Node(op, ("x",), "o", kernel="w", kernel_shape=kernel, bias="b")
        made = program(node, {"x": kernel}, dict.fromkeys("xo", Affine(1.0, 0)), values=values)
        images = x.reshape(-1, *kernel[1:])
        assert differing(made, [images]) == 0
        got[op] = np.asarray(compile_exact(made)(images)[0]).reshape(-1)
    real = 0.375 * x.astype(np.float64)
    assert (got["dense"] == np.trunc(real + np.copysign(0.5, real))).all()
    first = np.floor(2 * real + 0.5) / 2
    assert (got["conv"] == np.trunc(first + np.copysign(0.5, first))).all()
    assert (got["conv"] != got["dense"]).any()


@settings(max_examples=10)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.integers(0, 3))
def test_taps_slide(size: int, window: int, stride: int, dilation: int, pad: int) -> None:
    x = jnp.arange(1, size + 1).reshape(1, -1)
    padded = [0] * pad + list(range(1, size + 1)) + [0] * pad
    count = (len(padded) - (window - 1) * dilation - 1) // stride + 1
    if count > 0:
        seen = taps(x, 1, count, window, (pad, pad), stride, dilation)
        wanted = [[padded[o * stride + k * dilation] for o in range(count)] for k in range(window)]
        assert [s[0].tolist() for s in seen] == wanted


def test_a_layer_is_its_definition() -> None:
    """Sums of integers by hand: (x - zero point) w + bias, times 1/4, plus the output's zero point."""
    source, out = Affine(0.5, 3), Affine(0.5, -7)
    values = IntegerWeights(
        np.array([[4], [-8]], np.int8), np.full(1, 0.25, np.float32), np.array([6], np.int32)
    )
    node = Node("dense", ("x",), "o", kernel="w", kernel_shape=(2, 1))
    x = jnp.asarray([[5, 1], [3, 4]], jnp.int8)  # 2 * 4 + 2 * 8 + 6 = 30 -> 7.5; 0 - 8 + 6 = -2 -> -0.5
    assert centred(x, source).tolist() == [[2, -2], [0, 1]]
    with jax.enable_x64(True):
        assert layer(Site(node, (source,), out, (1, 1), values), x).tolist() == [[8 - 7], [-1 - 7]]
        site = Site(Node("matmul", ("a", "b"), "o"), (source, source), out, (1, 2, 2), values)
        square = matmul(site, x[None], x[None])  # [[2, -2], [0, 1]]^2 / 2 = [[2, -3], [0, 0.5]]
    assert square.tolist() == [[[2 - 7, -3 - 7], [0 - 7, 1 - 7]]]
