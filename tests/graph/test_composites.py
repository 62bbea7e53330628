"""JAX's own functions are one node; a stranger with the same name is what it computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.graph.composites import COMPOSITES
from research.graph.primitives import RULES
from research.graph.trace import CALLS, trace
from tests.graph.samples import agreed, ops

SHAPE = (1, 4, 6, 3)
IMAGE = jax.ShapeDtypeStruct(SHAPE, jnp.float32)


def test_names_are_of_functions_not_of_primitives() -> None:
    assert not COMPOSITES.keys() & (RULES.keys() | CALLS)


def test_hard_functions_are_one_node() -> None:
    assert ops(agreed(lambda p, x: jax.nn.hard_swish(2 * x), {}, SHAPE)) == ["mul", "hard_swish"]
    assert ops(agreed(lambda p, x: jax.jit(jax.nn.hard_silu)(x), {}, SHAPE)) == ["hard_swish"]
    tanh = agreed(lambda p, x: jax.nn.hard_tanh(x), {}, SHAPE)
    assert tanh.nodes[0].bounds == (-1.0, 1.0)


@jax.jit
def hard_swish(x: jax.Array) -> jax.Array:
    return x * jnp.clip(x + 2, 0, 6) / 6


@jax.jit
def _resize(x: jax.Array) -> jax.Array:
    return jnp.concatenate([x, x], 1)


def test_a_stranger_of_that_name_is_walked() -> None:
    assert ops(agreed(lambda p, x: hard_swish(x), {}, SHAPE)) == ["add", "clamp", "mul", "mul"]
    assert ops(agreed(lambda p, x: _resize(x), {}, SHAPE)) == ["concat"]


@settings(max_examples=12)
@given(
    st.sampled_from(["bilinear", "nearest"]),
    st.sampled_from([4, 8, 12, 7]),
    st.sampled_from([6, 12, 24, 11]),
    st.booleans(),
)
def test_larger_images(method: str, rows: int, columns: int, antialias: bool) -> None:
    def fn(p: object, x: jax.Array) -> jax.Array:
        return jax.image.resize(x, (x.shape[0], rows, columns, 3), method, antialias=antialias)

    if method == "nearest" and (rows % 4 or columns % 6):
        with pytest.raises(ValueError, match="no whole factor"):
            trace(fn, {}, IMAGE)
    else:
        graph = agreed(fn, {}, SHAPE, images=1)
        same = (rows, columns) == (4, 6)
        assert [n.mode for n in graph.nodes] == ([] if same else [f"{method}/half_pixel"])


def test_smaller_images_without_smoothing() -> None:
    for size in ((2, 3), (3, 5), (1, 1)):
        fn = lambda p, x, size=size: jax.image.resize(x, (1, *size, 3), "linear", antialias=False)  # noqa: E731
        assert ops(agreed(fn, {}, SHAPE, images=1)) == ["resize"]
    assert ops(agreed(lambda p, x: jax.image.resize(x, (1, 2, 2, 3), "nearest"), {}, SHAPE, images=1)) == [
        "resize"
    ]


@pytest.mark.parametrize(
    ("shape", "method", "says"),
    [
        ((1, 2, 3, 3), "bilinear", "antialias=False"),
        ((1, 8, 12, 3), "cubic", "'cubic'"),
        ((1, 8, 12, 3), "lanczos3", "nearest or linear"),
        ((1, 8, 12, 6), "nearest", "not H, W"),
    ],
)
def test_other_resizes_are_refused_with_advice(shape: tuple[int, ...], method: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        trace(lambda p, x: jax.image.resize(x, shape, method), {}, IMAGE)
    assert "use jax.image.resize" in str(error.value)
    assert "test_composites.py:" in str(error.value)


def test_resizing_by_a_matrix_of_ones_own_is_a_product() -> None:
    matrix = np.eye(6, 12, dtype=np.float32)
    graph = agreed(lambda p, x: jnp.einsum("nhwc,wv->nhvc", x, matrix), {}, SHAPE)
    assert ops(graph) == ["transpose", "dense", "transpose"]
