"""Rewrites keep what is computed, keep the sites, and fold norms exactly."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from research.graph.interpret import interpret_float
from research.graph.ir import Graph, Node, Tensor, check
from research.graph.rewrite import (
    activation_of,
    drop_dead,
    fold_norm,
    fuse,
    fuse_activation,
    fuse_bias,
    renumber,
)
from research.graph.trace import trace
from tests.graph.samples import NHWC, Net, conv, inverted_residual, networks

LAYER = {
    "kernel": jax.ShapeDtypeStruct((3, 3, 2, 2), jnp.float32),
    "bias": jax.ShapeDtypeStruct((2,), jnp.float32),
}
IMAGE = jax.ShapeDtypeStruct((1, 8, 8, 2), jnp.float32)


@settings(max_examples=20)
@given(networks)
def test_fusion_keeps_values_sites_and_work(net: Net) -> None:
    graph = trace(net.fn, net.params, net.image)
    fused, report = fuse(graph)
    images = net.images()
    np.testing.assert_allclose(
        interpret_float(fused, net.params, images),
        interpret_float(graph, net.params, images),
        rtol=1e-5,
        atol=1e-5,
    )
    assert {t for t in fused.tensors if t.site} == {t for t in graph.tensors if t.site}
    assert len(graph.nodes) - len(fused.nodes) == len(report)
    assert fused.total_macs == graph.total_macs
    assert fuse(fused) == (fused, ())


def test_a_residual_network_becomes_one_node_an_integer_tensor() -> None:
    net = inverted_residual()
    fused, report = fuse(trace(net.fn, net.params, net.image))
    assert [n.output for n in fused.nodes] == [
        "stem", "b0/expand", "b0/depthwise", "b0/project", "b0/add",
        "b1/expand", "b1/depthwise", "b1/project", "flat", "head",
    ]  # fmt: skip
    assert all(t.site for t in fused.tensors)
    assert fused.node_of("b0/expand").activation == "relu6"
    assert fused.node_of("b0/project").activation == "none"
    assert fused.node_of("b0/depthwise").bias == "b0/depthwise/bias"
    assert [a.tensor for a in report if a.pattern == "fuse_activation"] == [
        "stem", "b0/expand", "b0/depthwise", "b1/expand", "b1/depthwise",
    ]  # fmt: skip


def fused_ops(fn: object) -> list[str]:
    return [n.op for n in fuse(trace(fn, LAYER, IMAGE))[0].nodes]


def test_fusion_stops_where_it_would_lose_a_tensor() -> None:
    relu = jax.nn.relu
    assert fused_ops(lambda p, x: relu(conv(p, x))) == ["conv"]
    assert fused_ops(lambda p, x: relu(checkpoint_name(conv(p, x), "before"))) == ["conv", "clamp"]
    assert fused_ops(lambda p, x: (lambda y: relu(y) + y)(conv(p, x))) == ["conv", "clamp", "add"]
    assert fused_ops(lambda p, x: (lambda y: (relu(y), y))(conv(p, x))) == ["conv", "clamp"]
    assert fused_ops(lambda p, x: relu(relu(conv(p, x)) + x)) == ["conv", "add"]
    assert fused_ops(lambda p, x: jnp.clip(conv(p, x), 0, 4)) == ["conv", "clamp"]
    assert fused_ops(lambda p, x: relu(x)) == ["clamp"]
    assert fused_ops(lambda p, x: conv(p, x) + p["bias"][None, None, None, :]) == ["conv", "bias"]


def test_patterns_one_by_one() -> None:
    graph = trace(lambda p, x: jax.nn.relu(conv(p, x)), LAYER, IMAGE)
    assert [n.op for n in fuse_bias(graph)[0].nodes] == ["conv", "clamp"]
    assert [n.op for n in fuse_activation(graph)[0].nodes] == ["conv", "bias", "clamp"]
    assert [n.activation for n in fuse_activation(fuse_bias(graph)[0])[0].nodes] == ["relu"]
    assert [activation_of(b) for b in (None, (0.0, 6.0), (0.0, 4.0))] == [None, "relu6", None]


def test_dead_nodes_go_and_inputs_stay() -> None:
    nodes = (Node("clamp", ("x",), "a", bounds=(0.0, 1.0)), Node("clamp", ("x",), "b", bounds=(0.0, 1.0)))
    graph = Graph(nodes, tuple(Tensor(n, (1, 2)) for n in "xab"), ("x",), ("b",))
    smaller, report = drop_dead(graph)
    check(smaller)
    assert [t.name for t in smaller.tensors] == ["x", "b"]
    assert [(a.pattern, a.tensor) for a in report] == [("drop_dead", "a")]
    assert [t.name for t in renumber(smaller).tensors] == ["input_0", "clamp_0"]
    kept = replace(smaller, tensors=tuple(replace(t, site=True) for t in smaller.tensors))
    assert renumber(kept) == kept


@given(st.sampled_from(["conv", "depthwise", "dense"]), st.integers(0, 10**6))
def test_folded_norms_compute_the_same(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    channels = 4
    scale, bias, mean = (rng.normal(size=channels).astype(np.float32) for _ in range(3))
    var = rng.uniform(0.05, 2, channels).astype(np.float32)
    shape = {"conv": (3, 3, 4, channels), "depthwise": (3, 3, 1, channels), "dense": (4, channels)}[kind]
    kernel = rng.normal(size=shape).astype(np.float32)
    x = rng.normal(size=(2, 5, 5, 4) if kind != "dense" else (6, 4)).astype(np.float32)

    def layer(k: np.ndarray) -> jax.Array:
        if kind == "dense":
            return jnp.asarray(x) @ k
        groups = channels if kind == "depthwise" else 1
        return lax.conv_general_dilated(
            x, k, (1, 1), "SAME", dimension_numbers=NHWC, feature_group_count=groups
        )

    def rows(v: np.ndarray) -> np.ndarray:
        return v.reshape((1,) * (x.ndim - 1) + (-1,))

    wanted = rows(scale) * (layer(kernel) - rows(mean)) / np.sqrt(rows(var) + 1e-3) + rows(bias)
    folded, shift = fold_norm(kernel, scale, bias, mean, var, 1e-3)
    np.testing.assert_allclose(layer(folded) + rows(shift), wanted, rtol=1e-5, atol=2e-5)
    again, _ = fold_norm(*(jnp.asarray(v) for v in (kernel, scale, bias, mean, var)), 1e-3)
    np.testing.assert_allclose(again, folded, rtol=1e-6)


def test_a_norm_of_another_width_is_refused() -> None:
    ones = np.ones(4)
    with pytest.raises(ValueError, match=r"mean has shape \(3,\), the kernel has 4"):
        fold_norm(np.ones((1, 1, 2, 4)), ones, ones, np.ones(3), ones, 1e-5)
