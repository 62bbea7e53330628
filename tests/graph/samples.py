"""Small networks as plain JAX functions, and random ones for hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from research.graph.interpret import site_values
from research.graph.ir import Graph
from research.graph.trace import trace

NHWC = ("NHWC", "HWIO", "NHWC")


def ops(graph: Graph) -> list[str]:
    """The operations of a graph in order, without the constants."""
    return [n.op for n in graph.nodes if n.op != "constant"]


def agreed(fn: Any, params: Any, shape: tuple[int, ...], images: int = 2) -> Graph:
    """The graph of fn(params, x), after every output was seen to be what the function computes.

    Traced from shapes alone; then images [images, ...] are drawn in -2..2, kernels around 0, vectors in 0.5..1.5.
    """

    def draw(parameter: Any) -> np.ndarray:
        shape = np.shape(parameter)
        kernel, vector = (
            rng.normal(0, max(np.prod(shape[:-1]), 1) ** -0.5, shape),
            rng.uniform(0.5, 1.5, shape),
        )
        return np.asarray(kernel if len(shape) > 1 else vector, np.float32)

    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(np.shape(p), jnp.float32), params)
    graph = trace(fn, shapes, image)
    rng = np.random.default_rng(len(graph.nodes))
    drawn = jax.tree.map(draw, params)
    x = rng.uniform(-2.0, 2.0, (images, *shape[1:])).astype(np.float32)
    outputs = jax.jit(lambda x: [site_values(graph, drawn, x)[name] for name in graph.outputs])(x)
    for value, truth in zip(outputs, jax.tree.leaves(jax.jit(fn)(drawn, x)), strict=True):
        assert value.shape == truth.shape
        np.testing.assert_allclose(value, truth, rtol=1e-5, atol=1e-5 * float(np.abs(truth).max()))
    return graph


class Net(NamedTuple):
    """fn(params, image) with its float parameters and the shape [1, H, W, C] of one image."""

    fn: Callable[[Any, jax.Array], jax.Array]
    params: dict[str, Any]
    shape: tuple[int, int, int, int]

    @property
    def image(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.shape, jnp.float32)

    def images(self, count: int = 4, seed: int = 0) -> np.ndarray:
        """Smooth images [count, H, W, C] in 0..1."""
        _, rows, columns, channels = self.shape
        coarse = np.random.default_rng(seed).uniform(size=(count, 4, 4, channels))
        steps = np.arange(rows) * 4 // rows, np.arange(columns) * 4 // columns
        return coarse[:, steps[0]][:, :, steps[1]].astype(np.float32)


def conv(layer: Any, x: jax.Array, stride: int = 1, groups: int = 1, padding: str = "SAME") -> jax.Array:
    y = lax.conv_general_dilated(
        x, layer["kernel"], (stride, stride), padding, dimension_numbers=NHWC, feature_group_count=groups
    )
    return y + layer["bias"][None, None, None, :]


def weights(rng: np.random.Generator, *shape: int) -> dict[str, np.ndarray]:
    """A kernel that keeps the size of its input, and a small bias."""
    fan_in = np.prod(shape[:-1])
    kernel = rng.normal(0, 1.5 / np.sqrt(fan_in), shape)
    return {"kernel": kernel.astype(np.float32), "bias": rng.normal(0.1, 0.1, shape[-1]).astype(np.float32)}


def inverted_residual(size: int = 16, width: int = 8, seed: int = 0) -> Net:
    """Stem, a residual block, a stride-2 block, flatten, dense head of 6; every integer tensor is a site."""
    rng = np.random.default_rng(seed)
    wide, last = 2 * width, -(-size // 4)
    params = {
        "stem": weights(rng, 3, 3, 1, width),
        **{
            f"b{i}": {
                "expand": weights(rng, 1, 1, width, wide),
                "depthwise": weights(rng, 3, 3, 1, wide),
                "project": weights(rng, 1, 1, wide, width),
            }
            for i in (0, 1)
        },
        "head": weights(rng, last * last * width, 6),
    }

    def fn(p: Any, x: jax.Array) -> jax.Array:
        x = checkpoint_name(x, "image")
        x = checkpoint_name(jnp.clip(conv(p["stem"], x, 2), 0, 6), "stem")
        for i, stride in enumerate((1, 2)):
            b = p[f"b{i}"]
            y = checkpoint_name(jax.nn.relu6(conv(b["expand"], x)), f"b{i}/expand")
            y = checkpoint_name(jax.nn.relu6(conv(b["depthwise"], y, stride, wide)), f"b{i}/depthwise")
            y = checkpoint_name(conv(b["project"], y), f"b{i}/project")
            x = checkpoint_name(x + y, f"b{i}/add") if stride == 1 else y
        x = checkpoint_name(x.reshape(x.shape[0], -1), "flat")
        return checkpoint_name(x @ p["head"]["kernel"] + p["head"]["bias"][None, :], "head")

    return Net(fn, params, (1, size, size, 1))


def two_of_four(kernel: np.ndarray) -> np.ndarray:
    """The kernel [..., Cin, Cout] with the 2 smallest of every 4 consecutive input channels set to zero."""
    groups = np.moveaxis(kernel, -2, -1)
    groups = groups.reshape(*groups.shape[:-1], -1, 4).copy()
    np.put_along_axis(groups, np.argsort(np.abs(groups), -1)[..., :2], 0.0, -1)
    return np.moveaxis(groups.reshape(*groups.shape[:-2], -1), -1, -2)


class Layer(NamedTuple):
    """One layer of a random network."""

    kind: str
    kernel: int
    stride: int
    width: int
    activation: str


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "none": lambda x: x,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "clip": lambda x: jnp.clip(x, -1.0, 2.0),
}


def build(layers: list[Layer], size: int, channels: int, named: bool) -> Net:
    """A network of these layers and a mean at the end; `named` marks every second layer as a site."""
    rng, params, width = np.random.default_rng(len(layers) + size), {}, channels
    for i, layer in enumerate(layers):
        if layer.kind == "conv":
            params[f"l{i}"] = weights(rng, layer.kernel, layer.kernel, width, layer.width)
            width = layer.width
        elif layer.kind in ("depthwise", "residual"):
            params[f"l{i}"] = weights(rng, layer.kernel, layer.kernel, 1, width)
        elif layer.kind == "concat":
            width *= 2

    def fn(p: Any, x: jax.Array) -> jax.Array:
        for i, layer in enumerate(layers):
            if layer.kind == "conv":
                y = conv(p[f"l{i}"], x, layer.stride)
            elif layer.kind == "depthwise":
                y = conv(p[f"l{i}"], x, layer.stride, x.shape[-1])
            elif layer.kind == "residual":
                y = x + conv(p[f"l{i}"], x, 1, x.shape[-1])
            elif layer.kind == "concat":
                y = jnp.concatenate([x, jax.nn.relu(x)], -1)
            else:
                window, strides = (1, 2, 2, 1), (1, 2, 2, 1)
                y = lax.reduce_window(x, -jnp.inf, lax.max, window, strides, "SAME")
            x = ACTIVATIONS[layer.activation](y)
            x = checkpoint_name(x, f"site{i}") if named and i % 2 and layer.activation != "none" else x
        return x.mean((1, 2))

    return Net(fn, params, (1, size, size, channels))


networks = st.builds(
    build,
    st.lists(
        st.builds(
            Layer,
            st.sampled_from(["conv", "depthwise", "residual", "concat", "max_pool"]),
            st.sampled_from([1, 3, 5]),
            st.sampled_from([1, 2]),
            st.sampled_from([2, 3, 4]),
            st.sampled_from(sorted(ACTIVATIONS)),
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([5, 8]),
    st.sampled_from([1, 3]),
    st.booleans(),
)


def sqnr_db(truth: Any, got: Any) -> float:
    """Signal to quantisation noise of `got` about `truth`, in dB."""
    truth, got = np.asarray(truth, np.float64), np.asarray(got, np.float64)
    return float(10 * np.log10((truth**2).mean() / ((truth - got) ** 2).mean()))
