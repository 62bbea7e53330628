"""The graph type: hashable, checked, counted."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from research.graph.ir import Constant, Graph, Node, Tensor, check, parameter_count

STEM = Node(
    "conv", ("image",), "stem", "stem/kernel", (3, 3, 1, 4), "stem/bias", "relu6", (2, 2), "SAME"
)  # fmt: skip
SUM = Node("add", ("stem", "stem"), "sum")
FLAT = Node("reshape", ("sum",), "flat")
HEAD = Node("dense", ("flat",), "head", "head/kernel", (64, 6), "head/bias")
TENSORS = (
    Tensor("image", (1, 8, 8, 1), True),
    Tensor("stem", (1, 4, 4, 4), True),
    Tensor("sum", (1, 4, 4, 4)),
    Tensor("flat", (1, 64)),
    Tensor("head", (1, 6), True),
)
GRAPH = Graph((STEM, SUM, FLAT, HEAD), TENSORS, ("image",), ("head",))


def test_a_sound_graph_passes_and_can_be_asked() -> None:
    check(GRAPH)
    assert GRAPH.tensor("stem").shape == GRAPH.shape("stem") == (1, 4, 4, 4)
    assert GRAPH.node_of("sum") is SUM
    assert GRAPH.consumers("stem") == (SUM,)
    with pytest.raises(KeyError):
        GRAPH.node_of("image")


def test_counts_by_hand() -> None:
    assert [GRAPH.macs(n) for n in GRAPH.nodes] == [4 * 4 * 4 * 9, 0, 0, 64 * 6]
    assert GRAPH.total_macs == 4 * 4 * 4 * 9 + 64 * 6
    assert parameter_count(GRAPH) == 3 * 3 * 4 + 4 + 64 * 6 + 6


def test_a_depthwise_conv_costs_one_kernel_a_channel() -> None:
    node = Node("depthwise", ("a",), "b", "k", (3, 3, 1, 8), padding="SAME")
    graph = Graph((node,), (Tensor("a", (1, 5, 5, 8)), Tensor("b", (1, 5, 5, 8))), ("a",), ("b",))
    check(graph)
    assert graph.macs(node) == 5 * 5 * 8 * 9


def test_macs_of_products_and_transposed_convs() -> None:
    product = Node("matmul", ("a", "b"), "c")
    spread = Node("transpose_conv", ("x",), "y", "k", (3, 3, 2, 5), strides=(2, 2), padding="SAME")
    tensors = {"a": (1, 2, 4, 6), "b": (1, 2, 6, 3), "c": (1, 2, 4, 3), "x": (1, 4, 4, 2), "y": (1, 8, 8, 5)}
    graph = Graph(
        (product, spread), tuple(Tensor(n, s) for n, s in tensors.items()), ("a", "b", "x"), ("c", "y")
    )
    check(graph)
    assert graph.macs(product) == 2 * 4 * 3 * 6
    assert graph.macs(spread) == 4 * 4 * 2 * 9 * 5  # every pixel meets every weight


def test_a_computed_kernel_is_the_second_input() -> None:
    kernel = Node("constant", (), "k", "w", (8, 2))
    layer = Node("dense", ("x", "k"), "y", kernel_shape=(8, 2))
    tensors = (Tensor("x", (1, 8)), Tensor("k", (8, 2)), Tensor("y", (1, 2)))
    graph = Graph((kernel, layer), tensors, ("x",), ("y",))
    check(graph)
    assert graph.macs(layer) == 16
    assert parameter_count(graph) == 16
    with pytest.raises(ValueError, match="as its kernel"):
        check(replace(graph, nodes=(kernel, replace(layer, kernel_shape=(8, 3)))))


def test_a_shared_weight_counts_once() -> None:
    again = replace(HEAD, inputs=("flat",), output="head2")
    graph = replace(GRAPH, nodes=(*GRAPH.nodes, again), tensors=(*TENSORS, Tensor("head2", (1, 6))))
    assert parameter_count(graph) == parameter_count(GRAPH)


def test_equal_graphs_are_equal_and_a_change_shows() -> None:
    twin = Graph(tuple(replace(n) for n in GRAPH.nodes), TENSORS, ("image",), ("head",))
    assert twin == GRAPH
    assert hash(twin) == hash(GRAPH)
    assert twin.hash == GRAPH.hash
    assert replace(GRAPH, nodes=(replace(STEM, activation="relu"), SUM, FLAT, HEAD)).hash != GRAPH.hash


def test_the_content_hash_is_the_same_in_another_process() -> None:
    code = "from tests.graph.test_ir import GRAPH; print(GRAPH.hash)"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == GRAPH.hash, done.stderr


def test_constants_are_named_by_content() -> None:
    a, b = Constant.of(np.arange(3.0)), Constant.of(np.arange(3.0))
    assert a == b
    assert a.name != Constant.of(np.arange(3.0)[::-1]).name
    assert a.name != Constant.of(np.arange(3.0).reshape(1, 3)).name
    np.testing.assert_array_equal(a.value, np.arange(3.0, dtype=np.float32))


BROKEN = {
    "reads 'sum' before": replace(GRAPH, nodes=(STEM, FLAT, SUM, HEAD)),
    "made twice": replace(GRAPH, nodes=(STEM, STEM, SUM, FLAT, HEAD)),
    "share a name": replace(GRAPH, tensors=(*TENSORS, TENSORS[0])),
    "the graph says": replace(GRAPH, tensors=(*TENSORS[:4], Tensor("head", (1, 7)))),
    "does not list": replace(GRAPH, tensors=TENSORS[:4]),
    "made by no node": replace(GRAPH, outputs=("tail",)),
    "unknown operation 'warp'": replace(GRAPH, nodes=(replace(STEM, op="warp"), SUM, FLAT, HEAD)),
    "does not fit 1 input channels": replace(
        GRAPH, nodes=(replace(STEM, kernel_shape=(3, 3, 2, 4)), SUM, FLAT, HEAD)
    ),
}


@pytest.mark.parametrize("says", BROKEN)
def test_a_broken_graph_is_refused(says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check(BROKEN[says])
