"""Layers: every convolution, product, pool and reduction that the graph has, in every spelling."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax

from research.graph.primitives import RULES
from research.graph.trace import CALLS, trace
from tests.graph.samples import NHWC, agreed, ops

SHAPE = (1, 7, 6, 4)
IMAGE = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
PADDINGS = st.sampled_from(["SAME", "VALID", ((1, 1), (1, 1)), ((0, 2), (1, 0)), ((2, -1), (0, 1))])


def of_module(module: nn.Module, shape: tuple[int, ...] = SHAPE) -> tuple[Any, Any]:
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    return module.apply, jax.eval_shape(module.init, jax.random.key(0), image)


def test_no_call_is_also_a_rule() -> None:
    assert not CALLS & RULES.keys()


@settings(max_examples=20)
@given(
    st.sampled_from([1, 2, 3]), st.sampled_from([1, 2]), st.sampled_from([1, 2]), PADDINGS,
    st.sampled_from([(1, 3), (2, 6), (4, 4), (4, 8), (1, 1)]),
)  # fmt: skip
def test_convolutions(window: int, stride: int, dilation: int, padding: Any, layout: tuple[int, int]) -> None:
    groups, out = layout
    params = {"k": np.ones((window, 3, 4 // groups, out))}

    def fn(p: Any, x: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x, p["k"], (stride, 1), padding, rhs_dilation=(dilation, 1), dimension_numbers=NHWC,
            feature_group_count=groups,
        )  # fmt: skip

    graph = agreed(fn, params, SHAPE)
    *before, layer = graph.nodes
    assert [n.op for n in before] in ([], ["pad"], ["slice", "pad"])
    assert layer.op == ("depthwise" if groups == 4 else "conv")
    assert (layer.kernel, layer.kernel_shape) == ("k", params["k"].shape)
    assert (layer.strides, layer.dilation) == ((stride, 1), (dilation, 1))
    assert not before or layer.padding == "VALID"


@settings(max_examples=18)
@given(
    st.sampled_from([1, 2, 3, 4, 5]), st.sampled_from([(2, 2), (3, 3), (2, 1), (4, 2)]), PADDINGS, st.booleans()
)  # fmt: skip
def test_transposed_convolutions(window: int, strides: tuple[int, int], padding: Any, turned: bool) -> None:
    module = nn.ConvTranspose(3, (window, window), strides, padding, transpose_kernel=turned)
    graph = agreed(*of_module(module), SHAPE)
    moving = [n.op for n in graph.nodes if "input_0" in n.inputs]
    assert moving == ["transpose_conv"]
    if isinstance(padding, str):
        assert ops(graph)[-2:] == ["transpose_conv", "add"]
        layer = next(n for n in graph.nodes if n.op == "transpose_conv")
        assert layer.padding == padding or window <= max(strides)  # then both are the same


def test_a_transposed_convolution_that_torch_would_write() -> None:
    def fn(p: Any, x: jax.Array) -> jax.Array:  # kernel 4, stride 2, padding 1: twice the size
        return lax.conv_transpose(x, p, (2, 2), ((2, 2), (2, 2)), dimension_numbers=NHWC)

    graph = agreed(fn, np.ones((4, 4, 4, 2)), SHAPE)
    assert ops(graph) == ["slice", "transpose_conv"]
    assert graph.nodes[-1].padding == "SAME"
    assert graph.shape(graph.outputs[0]) == (1, 14, 12, 2)


def test_other_layouts_are_transposed() -> None:
    graph = agreed(lambda p, x: lax.conv(x, p, (2, 2), "SAME"), np.ones((3, 4, 2, 2)), (1, 4, 9, 8))
    assert ops(graph) == ["transpose", "transpose", "conv", "transpose"]


def test_kernels_that_are_computed_are_a_second_input() -> None:
    params = {"k": np.ones((3, 3, 4, 5)), "m": np.ones((3, 3, 4, 5)), "d": np.ones((5, 6))}

    def fn(p: Any, x: jax.Array) -> jax.Array:
        x = lax.conv_general_dilated(x, p["k"] * p["m"], (1, 1), "SAME", dimension_numbers=NHWC)
        return x @ p["d"] @ p["d"].T @ jnp.abs(p["d"])

    graph = agreed(fn, params, SHAPE)
    assert ops(graph) == ["mul", "conv", "dense", "transpose", "dense", "abs", "dense"]
    layers = [n for n in graph.nodes if n.op in ("conv", "dense")]
    assert [(len(n.inputs), n.kernel) for n in layers] == [(2, None), (1, "d"), (2, None), (2, None)]
    assert [n.kernel_shape for n in layers] == [(3, 3, 4, 5), (5, 6), (6, 5), (5, 6)]
    with pytest.raises(ValueError, match="kernel depends on the image"):
        trace(
            lambda p, x: lax.conv_general_dilated(
                x, x[0, :4, :4, :, None], (1, 1), "SAME", dimension_numbers=NHWC
            ),
            {},
            IMAGE,
        )


W, CUBE, ROWS = np.ones((4, 5)), np.ones((4, 2, 3)), (1, 3, 4)
PRODUCTS: dict[str, tuple[Any, Any, tuple[int, ...], list[str]]] = {
    "x @ w": (lambda p, x: x @ p, W, SHAPE, ["dense"]),
    "rank 2": (lambda p, x: x @ p, W, (1, 4), ["dense"]),
    "vector": (lambda p, x: x @ p, np.ones(4), ROWS, ["dense", "reshape"]),
    "einsum": (lambda p, x: jnp.einsum("nhwc,co->nhwo", x, p), W, SHAPE, ["dense"]),
    "kernel turned": (
        lambda p, x: jnp.einsum("nhwc,oc->nhwo", x, p), W.T, SHAPE, ["transpose", "dense"]
    ),
    "over rows": (
        lambda p, x: jnp.einsum("nhwc,hd->ndwc", x, p), W, (1, 4, 6, 3), ["transpose", "dense", "transpose"]
    ),
    "weight first": (lambda p, x: jnp.einsum("co,nhc->noh", p, x), W, ROWS, ["dense", "transpose"]),
    "known matrix first": (lambda p, x: jnp.asarray(W.T) @ x.swapaxes(1, 2), {}, ROWS, ["dense", "transpose"]),
    "two axes": (
        lambda p, x: jnp.einsum("nhwc,whd->ncd", x, p), np.ones((6, 7, 5)), SHAPE,
        ["transpose", "reshape", "dense"],
    ),
    "many outputs": (lambda p, x: jnp.einsum("nhc,cde->nhde", x, p), CUBE, ROWS, ["dense", "reshape"]),
    "gram": (lambda p, x: x @ x.swapaxes(-1, -2), {}, SHAPE, ["transpose", "matmul"]),
    "gram of vectors": (
        lambda p, x: jnp.einsum("nhc,nwc->nhw", x, -x), {}, ROWS, ["neg", "transpose", "matmul"]
    ),
    "heads": (
        lambda p, x: jnp.einsum("nqhd,nkhd->nhqk", x, jnp.exp(x)), {}, (1, 5, 2, 4),
        ["exp", "transpose", "transpose", "matmul"],
    ),
    "vmapped": (lambda p, x: jax.vmap(lambda a: a @ a.T)(x), {}, (1, 5, 4), ["transpose", "matmul"]),
}  # fmt: skip


@pytest.mark.parametrize("product", PRODUCTS)
def test_products(product: str) -> None:
    fn, params, shape, wanted = PRODUCTS[product]
    graph = agreed(fn, params, shape)
    assert ops(graph) == wanted
    assert all(graph.shape(n.output)[0] == 1 for n in graph.nodes if "input_0" in n.inputs)


def test_a_kernel_for_each_head_is_a_matmul_with_a_constant() -> None:
    graph = agreed(
        lambda p, x: jnp.einsum("nqhd,hdk->nqhk", x, p), np.ones((2, 4, 3)), (1, 5, 2, 4), images=1
    )
    assert [op for op in ops(graph) if op not in ("transpose", "reshape")] == ["matmul"]


def test_attention_is_products_and_one_softmax() -> None:
    module = nn.MultiHeadDotProductAttention(2)
    apply, params = of_module(module, (1, 5, 4))
    graph = agreed(apply, params, (1, 5, 4))
    assert [op for op in ops(graph) if op not in ("reshape", "transpose", "add")] == [
        "dense", "dense", "dense", "mul", "matmul", "softmax", "matmul", "dense"
    ]  # fmt: skip


def average(window: int, stride: int, padding: Any, real_pixels: bool) -> Any:
    sizes = (1, window, window, 1), (1, stride, stride, 1), padding

    def fn(p: object, x: jax.Array) -> jax.Array:
        total = lax.reduce_window(x, 0.0, lax.add, *sizes)
        if not real_pixels:
            return total / window**2
        return total / lax.reduce_window(jnp.ones((1, *x.shape[1:3], 1)), 0.0, lax.add, *sizes)

    return fn


@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_a_window_sum_over_its_pixels_is_an_average_pool(window: int, stride: int, padding: str) -> None:
    assert ops(agreed(average(window, stride, padding, real_pixels=True), {}, SHAPE)) == ["avg_pool"]


def test_averages_that_count_padding_are_scaled() -> None:
    assert ops(agreed(average(2, 2, "VALID", real_pixels=False), {}, SHAPE)) == ["avg_pool"]
    assert ops(agreed(average(3, 1, "SAME", real_pixels=False), {}, SHAPE)) == ["avg_pool", "mul"]
    around = ((0, 0), (1, 1), (1, 1), (0, 0))
    assert ops(agreed(average(3, 2, around, real_pixels=False), {}, SHAPE)) == ["pad", "avg_pool"]


def test_max_pools_are_padded_with_what_is_never_larger() -> None:
    def fn(p: object, x: jax.Array) -> jax.Array:
        return nn.max_pool(jnp.clip(x, -1.0, 1.0), (3, 3), (2, 2), ((1, 1), (1, 1)))

    graph = agreed(fn, {}, SHAPE)
    assert ops(graph) == ["clamp", "pad", "max_pool"]
    assert graph.nodes[1].alpha == -1.0
    assert ops(agreed(lambda p, x: nn.max_pool(x, (3, 2), (2, 1), "SAME"), {}, SHAPE)) == ["max_pool"]


@settings(max_examples=15)
@given(st.sets(st.integers(1, 3), min_size=1), st.booleans(), st.sampled_from(["mean", "max", "var"]))
def test_reductions_over_any_axes(axes: set[int], keep: bool, name: str) -> None:
    graph = agreed(lambda p, x: getattr(x, name)(tuple(axes), keepdims=keep), {}, (1, 3, 4, 5))
    if name == "mean":
        assert ops(graph) == ["mean"]
        assert graph.nodes[0].axes == tuple(sorted(axes))
    elif name == "max":
        assert [op for op in ops(graph) if op not in ("transpose", "reshape")] == ["max_pool"]
    else:
        assert ops(graph) == ["mean", "sub", "square", "mean"]


def test_the_batch_of_one_is_its_own_mean() -> None:
    assert ops(agreed(lambda p, x: x.mean(0), {}, SHAPE, images=1)) == ["reshape"]
    assert ops(agreed(lambda p, x: x.mean(), {}, SHAPE, images=1)) == ["mean", "reshape"]


@settings(max_examples=6)
@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 3))
def test_counts_of_real_pixels(size: int, window: int, stride: int) -> None:
    assume(size >= window)
    agreed(average(window, stride, "SAME", real_pixels=True), {}, (1, size, size, 1))


def rows_only(x: jax.Array) -> jax.Array:
    kernel = jnp.ones((3, 4, 2))
    return lax.conv_general_dilated(x[:, 0], kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))


def spread_and_grouped(x: jax.Array) -> jax.Array:
    kernel, pads = jnp.ones((3, 3, 1, 4)), ((1, 1), (1, 1))
    return lax.conv_general_dilated(
        x, kernel, (1, 1), pads, lhs_dilation=(2, 2), feature_group_count=4, dimension_numbers=NHWC
    )


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (rows_only, "over two axes"),
        (spread_and_grouped, "groups of its own"),
        (lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 1, 2), (1, 1, 1, 2), "SAME"), "plain pool"),
        (lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))), "after a relu"),
        (lambda x: lax.reduce_window(x, jnp.inf, lax.min, (1, 2, 2, 1), (1, 2, 2, 1), "SAME"), "no such"),
        (lambda x: x.min(-1), "negate"),
        (lambda x: x.argmax(-1), "after the network"),
        (lambda x: jnp.cumsum(x, 1), "unroll"),
    ],
)
def test_layers_outside_the_graph_say_why(fn: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        trace(lambda p, x: fn(x), {}, IMAGE)
