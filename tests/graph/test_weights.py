"""Weights are found by path, in the layout of the node, and checked."""

import jax.numpy as jnp
import numpy as np
import pytest

from research.graph.ir import Constant, Graph, Node, Tensor
from research.graph.weights import flat_paths, weights_of

NODE = Node("conv", ("x",), "y", "a/kernel", (1, 1, 2, 3), "a/bias")
GRAPH = Graph((NODE,), (Tensor("x", (1, 4, 4, 2)), Tensor("y", (1, 4, 4, 3))), ("x",), ("y",))
GOOD = {"a": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": np.ones((1, 3))}}


def test_nested_and_flat_dictionaries_read_alike() -> None:
    flat = flat_paths(GOOD)
    assert sorted(flat) == ["a/bias", "a/kernel"]
    assert flat_paths(flat).keys() == flat.keys()
    for params in (GOOD, flat):
        weights = weights_of(GRAPH, params)
        np.testing.assert_array_equal(weights.kernel(NODE), np.arange(6.0).reshape(1, 1, 2, 3))
        np.testing.assert_array_equal(weights.bias(NODE), np.ones(3))


def test_constants_of_the_graph_count_as_weights() -> None:
    constant = Constant.of(np.full(3, 2.0))
    node = Node("conv", ("x",), "y", "a/kernel", (1, 1, 2, 3), constant.name)
    graph = Graph((node,), GRAPH.tensors, ("x",), ("y",), (constant,))
    np.testing.assert_array_equal(weights_of(graph, GOOD).bias(node), np.full(3, 2.0))


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"a": {"kernel": np.ones((2, 3))}}, "'a/bias', which was not given"),
        ({"a/kernel": np.ones((2, 4)), "a/bias": np.ones(3)}, "'y' needs 6 numbers"),
        ({"a/kernel": np.full((2, 3), np.inf), "a/bias": np.ones(3)}, "not finite"),
    ],
)
def test_wrong_weights_are_refused_by_name(params: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        weights_of(GRAPH, params)
