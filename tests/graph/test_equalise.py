"""Equalisation: the network computes the same, ranges of neighbours meet, and what cannot be scaled is left alone."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.graph.calibrate import channel_statistics
from research.graph.equalise import equalise
from research.graph.interpret import interpret_float
from research.graph.ir import Activation, Graph, Node, Op, Tensor
from research.graph.rewrite import fuse
from research.graph.trace import trace
from tests.graph.samples import inverted_residual

Layers = list[tuple[Op, int]]


def chain(layers: Layers, activations: list[Activation], seed: int) -> tuple[Graph, dict[str, np.ndarray]]:
    """Layers (op, width or multiplier) one after the other on [1, 5, 5, 3], channels of very different sizes."""
    rng, width, params = np.random.default_rng(seed), 3, dict[str, np.ndarray]()
    nodes, tensors = list[Node](), [Tensor("x", (1, 5, 5, 3))]
    for i, ((op, size), activation) in enumerate(zip(layers, activations, strict=True)):
        out = width * min(size, 2) if op == "depthwise" else size
        shape = {"conv": (3, 3, width, out), "depthwise": (3, 3, 1, out), "dense": (width, out)}[op]
        params |= {f"k{i}": rng.normal(size=shape) * np.exp(2 * rng.normal(size=out))}
        params |= {f"b{i}": rng.normal(size=out)}
        more: dict[str, Any] = {} if op == "dense" else {"padding": "SAME"}
        source, width = tensors[-1].name, out
        nodes.append(
            Node(
                op,
                (source,),
                f"t{i}",
                kernel=f"k{i}",
                kernel_shape=shape,
                bias=f"b{i}",
                activation=activation,
                **more,
            )
        )
        tensors.append(Tensor(f"t{i}", (1, 5, 5, out)))
    graph = Graph(tuple(nodes), tuple(tensors), ("x",), (tensors[-1].name,))
    return graph, {name: value.astype(np.float32) for name, value in params.items()}


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(st.sampled_from(["conv", "depthwise", "dense"]), st.integers(1, 4)), min_size=2, max_size=4
    ),
    st.lists(st.sampled_from(["none", "relu"]), min_size=4, max_size=4),
    st.integers(0, 10**6),
)
def test_the_network_computes_the_same_with_equal_ranges(
    layers: Layers, activations: list[Activation], seed: int
) -> None:
    graph, params = chain(layers, activations[: len(layers)], seed)
    found, report = equalise(graph, params)
    images = np.random.default_rng(seed).normal(size=(3, 5, 5, 3)).astype(np.float32)
    wanted = interpret_float(graph, params, images)
    np.testing.assert_allclose(
        interpret_float(graph, found, images), wanted, atol=1e-5 * np.abs(wanted).max(), rtol=1e-5
    )
    assert [(p.first, p.second) for p in report] == [(f"t{i}", f"t{i + 1}") for i in range(len(layers) - 1)]
    if len(layers) == 2:
        channels = graph.shape("t0")[-1]
        out = np.abs(found["k0"]).reshape(-1, channels).max(0)
        kernel = found["k1"].reshape(9, channels, -1) if layers[1][0] == "depthwise" else found["k1"]
        into = np.abs(np.moveaxis(kernel, -2, 0)).reshape(channels, -1).max(1)
        np.testing.assert_allclose(out, into, rtol=1e-4)


def test_relu6_is_scaled_only_below_its_bound() -> None:
    net = inverted_residual(8)
    graph, _ = fuse(trace(net.fn, net.params, net.image))
    images = 20 * net.images(16)  # some channels reach 6
    found, report = equalise(graph, net.params)
    reasons = {p.first: p.refused for p in report}
    assert set(reasons) == {"b0/expand", "b0/depthwise", "b1/expand", "b1/depthwise"}
    assert all("relu6 may saturate" in reason for reason in reasons.values())
    assert all(np.array_equal(found[path], array) for path, array in equalise(graph, found)[0].items())

    peaks = channel_statistics(graph, net.params, images).peaks
    found, report = equalise(graph, net.params, peaks)
    assert not any(p.refused for p in report)
    assert min(p.least for p in report) < 0.9
    assert max(p.largest for p in report) > 1.1
    assert 0 < (peaks["b0/expand"] >= 6).sum() < peaks["b0/expand"].size
    wanted = interpret_float(graph, net.params, images)
    np.testing.assert_allclose(
        interpret_float(graph, found, images), wanted, atol=1e-4 * np.abs(wanted).max()
    )


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ({"activation": "relu_n1_to_1"}, {}, "relu_n1_to_1 does not scale"),
        ({}, {"kernel": "k0", "kernel_shape": (1, 1, 4, 4)}, "another layer reads the same weights"),
        ({}, {"kernel_shape": (1, 1, 2, 4)}, "the second layer is a grouped convolution"),
    ],
)
def test_what_cannot_be_scaled_says_why(first: dict[str, Any], second: dict[str, Any], reason: str) -> None:
    plain: dict[str, Any] = {"op": "conv", "kernel_shape": (1, 1, 4, 4)}
    one, two = ({**plain, "kernel": f"k{i}", **more} for i, more in enumerate((first, second)))
    nodes = (Node(inputs=("x",), output="a", **one), Node(inputs=("a",), output="y", **two))
    graph = Graph(nodes, tuple(Tensor(n, (1, 2, 2, 4)) for n in "xay"), ("x",), ("y",))
    rng = np.random.default_rng(0)
    params = {"k0": rng.normal(size=16), "k1": rng.normal(size=int(np.prod(two["kernel_shape"])))}
    found, (pair,) = equalise(graph, params)
    assert pair == ("a", "y", 1.0, 1.0, reason)
    assert all(
        np.array_equal(found[path], np.float32(array)) for path, array in params.items() if path in found
    )


def test_a_tensor_with_two_readers_or_that_is_an_output_is_left_alone() -> None:
    layer: dict[str, Any] = {"op": "conv", "kernel_shape": (1, 1, 4, 4)}
    nodes = (
        Node(inputs=("x",), output="a", kernel="k0", **layer),
        Node(inputs=("a",), output="b", kernel="k1", **layer),
        Node("add", ("a", "b"), "c"),
        Node(inputs=("c",), output="y", kernel="k2", **layer),
        Node(inputs=("y",), output="z", kernel="k3", **layer),
    )
    params = {f"k{i}": np.random.default_rng(i).normal(size=16) for i in range(4)}
    graph = Graph(nodes, tuple(Tensor(n, (1, 2, 2, 4)) for n in "xabcyz"), ("x",), ("y", "z"))
    assert equalise(graph, params)[1] == ()
