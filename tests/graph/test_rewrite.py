"""Fusion and optimisation keep what is computed and the sites, and do not depend on any order."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.ad_checkpoint import checkpoint_name

from research import nets
from research.graph.interpret import interpret_float, site_values
from research.graph.ir import WEIGHTED, Graph, Node, Tensor, check
from research.graph.matching import COMMUTATIVE
from research.graph.rewrite import PATTERNS, drop_dead, fold_constants_only, fuse, optimise, renumber
from research.graph.tangles import IMAGE as SMALL
from research.graph.tangles import tangle
from research.graph.trace import trace
from research.graph.weights import flat_paths
from research.nets.layers import NORM_EPSILON
from research.squeeze.fold import fold
from research.squeeze.transform import Variables
from tests.graph.chains import Chain, shuffled
from tests.graph.samples import Net, conv, inverted_residual, networks

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
    assert len(fused.nodes) <= len(graph.nodes) - len(report)
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
    assert fused_ops(lambda p, x: conv(p, x) + p["bias"][None, None, None, :]) == ["conv", "constant", "add"]


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


# Every order gives the same


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_the_result_does_not_depend_on_the_order_of_patterns_or_nodes(seed: int) -> None:
    graph = tangle(seed)
    wanted, weights, _ = optimise(graph, {})
    for number in range(3):
        rng = np.random.default_rng([seed, number])
        tried = [PATTERNS[i] for i in rng.permutation(len(PATTERNS))]
        found, numbers, _ = optimise(graph, {}, tried, rng)
        assert found.hash == wanted.hash
        assert numbers.keys() == weights.keys()
        for path, value in weights.items():
            np.testing.assert_allclose(numbers[path], value, rtol=2e-7, atol=1e-12)


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_the_result_does_not_depend_on_how_the_graph_is_written_down(seed: int) -> None:
    graph = tangle(seed)
    wanted, weights, _ = optimise(graph, {})
    other = shuffled(graph, np.random.default_rng(seed), COMMUTATIVE)
    check(other)
    assert optimise(other, {})[0].hash == wanted.hash
    assert optimise(wanted, weights)[0].hash == wanted.hash


@settings(max_examples=12)
@given(st.integers(0, 10**6))
def test_optimised_graphs_compute_the_same_and_keep_their_sites(seed: int) -> None:
    graph = tangle(seed, length=12)
    result, params, report = optimise(graph, {})
    images = np.random.default_rng(seed).uniform(-2, 2, (2, *SMALL[1:])).astype(np.float32)
    before, after = site_values(graph, {}, images), site_values(result, params, images)
    live = drop_dead(graph)[0]
    sites = {t.name for t in live.tensors if t.site}
    assert {t.name for t in result.tensors if t.site} == sites
    pairs = [*zip(graph.outputs, result.outputs, strict=True), *((name, name) for name in sites)]
    for old, new in pairs:
        scale = float(np.abs(before[old]).max()) + 1e-6
        np.testing.assert_allclose(after[new] / scale, before[old] / scale, atol=3e-5)
    costs = [sum(n.op != "constant" for n in g.nodes) for g in (live, result)]
    assert costs[1] <= costs[0]
    assert report.applied or costs[1] == costs[0]


def test_patterns_have_names_of_their_own_and_a_docstring() -> None:
    assert len({p.name for p in PATTERNS}) == len(PATTERNS) >= 18
    assert all(p.rule.__doc__ for p in PATTERNS)


# Weights


SPEC = nets.HandNet(16, 8, (nets.Block(12, 8), nets.Block(16, 12, stride=2)), 8)


def test_a_network_with_norms_becomes_the_one_that_the_house_folds() -> None:
    rng = np.random.default_rng(0)
    values = jax.tree.map(lambda v: rng.uniform(0.1, 1, v.shape).astype(np.float32), nets.shapes(SPEC))
    tree = dict(zip(("params", "norm_stats"), values, strict=True))

    def head(v, image):
        norm = v["norm_stats"]
        return nets.forward(SPEC, v["params"], norm, image[..., 0], formulation="canonical").taps["head"]

    image = rng.uniform(size=(1, 16, 16, 1)).astype(np.float32)
    graph, weights, report = optimise(trace(head, tree, image), tree)
    spec, folded, _ = fold(NORM_EPSILON)(SPEC, Variables(tree["params"], tree["norm_stats"]))
    wanted, _ = fuse(trace(*nets.traced(spec)))
    assert [(n.op, n.output, n.activation) for n in graph.nodes] == [
        (n.op, n.output, n.activation) for n in wanted.nodes
    ]
    old = flat_paths(folded.params)
    for node, twin in zip(graph.nodes, wanted.nodes, strict=True):
        if node.op in WEIGHTED:
            np.testing.assert_allclose(weights[node.kernel], old[twin.kernel], rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(weights[node.bias], old[twin.bias], rtol=1e-4, atol=1e-6)
    assert {n.kernel for n in graph.nodes} >= {"stem/kernel", "b0/depthwise/kernel", "params/head/kernel"}
    assert report.refused == ()
    chain, _, _ = fold_constants_only(trace(head, tree, image), tree)
    units = sum(n.op in ("conv", "depthwise") for n in chain.nodes)
    assert [sum(n.op == op for n in chain.nodes) for op in ("sub", "mul", "rsqrt")] == [units, units, 0]


def test_a_weight_that_two_layers_share_is_folded_for_one_only() -> None:
    c = Chain()
    kernel, shape = c.weight(np.eye(4)), (4, 4)
    y = c.add("dense", "image", kernel=kernel, kernel_shape=shape)
    z = c.add("dense", c.step("mul", y, 2.0), name="last", kernel=kernel, kernel_shape=shape, site=True)
    result, params, _ = optimise(c.graph(z), {})
    assert [n.kernel for n in result.nodes] == ["dense_0/kernel", kernel]
    np.testing.assert_array_equal(params["dense_0/kernel"], 2 * np.eye(4))
    assert kernel not in params  # it is a constant of the graph


def test_a_new_weight_does_not_take_the_name_of_an_old_one() -> None:
    nodes = (
        Node("dense", ("x",), "y", "a", (2, 2)),
        Node("constant", (), "c", "c", (2,)),
        Node("mul", ("y", "c"), "head"),
        Node("dense", ("head",), "z", "head/kernel", (2, 2)),
    )
    tensors = (*(Tensor(n, (1, 2)) for n in "xyz"), Tensor("c", (2,)), Tensor("head", (1, 2), True))
    params = {"a": np.eye(2), "c": np.ones(2) * 3, "head": {"kernel": np.ones((2, 2))}}
    result, weights, _ = optimise(Graph(nodes, tensors, ("x",), ("z",)), params)
    assert {n.output: n.kernel for n in result.nodes} == {"head": "head/kernel+", "dense_1": "head/kernel"}
    np.testing.assert_array_equal(weights["head/kernel+"], 3 * np.eye(2))


def test_missing_weights_are_named() -> None:
    c = Chain()
    c.add("dense", "image", kernel="w", kernel_shape=(4, 4))
    with pytest.raises(ValueError, match="reads the parameter 'w', which was not given"):
        optimise(c.graph(), {})
