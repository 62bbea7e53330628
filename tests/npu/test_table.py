"""A graph becomes rows of the right numbers, and what has no price is refused by name."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from research.graph.ir import Graph
from research.npu.chip import U85_128
from research.npu.cost import cost
from research.npu.table import (
    ADD,
    CONV,
    DENSE,
    DEPTHWISE,
    FREE,
    MAX_POOL,
    LayerTable,
    layer_names,
    layer_table,
    pad,
)
from tests.npu.networks import Sketch, hand_network


def row(graph: Graph, name: str) -> dict[str, float]:
    table = layer_table(graph)
    index = layer_names(graph).index(name)
    return {field: float(getattr(table, field)[index]) for field in LayerTable._fields}


def test_fields_are_float32_of_one_length() -> None:
    graph = hand_network(0, False).graph
    table = layer_table(graph)
    assert {column.shape for column in table} == {(len(graph.nodes),)}
    assert {column.dtype for column in table} == {np.dtype(np.float32)}


def test_macs_are_those_of_the_graph() -> None:
    for index in range(3):
        graph = hand_network(index, False).graph
        table = layer_table(graph)
        assert float(table.macs) == graph.total_macs
        assert [float(m) for m in table.layer_macs] == [graph.macs(node) for node in graph.nodes]


def test_rows_of_a_hand_network() -> None:
    graph = hand_network(0, False).graph
    stem, depthwise, head = row(graph, "stem"), row(graph, "b1/depthwise"), row(graph, "head")
    assert (stem["op"], stem["ih"], stem["oh"], stem["ic"], stem["kh"], stem["stride"]) == (
        CONV,
        64,
        32,
        1,
        3,
        2,
    )
    assert stem["plain_in"] == 1
    assert stem["plain_out"] == 0
    assert stem["sparse"] == 1  # one input channel: three of every four weights are padding
    assert (depthwise["op"], depthwise["ic"], depthwise["oc"], depthwise["stride"]) == (DEPTHWISE, 32, 32, 2)
    assert (head["op"], head["ic"], head["oc"], head["oh"]) == (DENSE, 4 * 4 * 64, 42, 1)
    assert row(graph, "flat")["op"] == FREE


def test_an_add_rides_on_the_layer_before_it() -> None:
    graph = hand_network(0, False).graph
    names = layer_names(graph)
    table = layer_table(graph)
    carriers = {n for n, c in zip(names, np.asarray(table.carries_add), strict=True) if c}
    carried = {n for n, c in zip(names, np.asarray(table.carried), strict=True) if c}
    assert carried == {n for n in names if n.endswith("/add")}
    assert carriers == {n.replace("add", "project") for n in carried}
    assert row(graph, "b0/add")["op"] == ADD


def test_no_carrier_where_the_sum_is_read_elsewhere() -> None:
    sketch = Sketch((8, 8, 16))
    left = sketch.unit("conv", "image", "left", 16)
    right = sketch.unit("conv", left, "right", 16)
    total = sketch.add(left, right, "total")
    sketch.add(total, right, "again")
    table = layer_table(sketch.graph("again"))
    assert float(table.carries_add.sum()) == 0
    assert float(table.carried.sum()) == 0


def test_pools() -> None:
    sketch = Sketch((8, 8, 16))
    sketch.pool("max_pool", sketch.unit("conv", "image", "a", 32), "pooled")
    found = row(sketch.graph("pooled"), "pooled")
    assert (found["op"], found["kh"], found["kw"], found["stride"], found["oh"]) == (MAX_POOL, 2, 2, 2, 4)


def test_padding_rows_are_free() -> None:
    table = layer_table(hand_network(0, False).graph)
    longer = pad(table, 40)
    assert longer.op.shape == (40,)
    assert float(cost(longer, U85_128).ms) == pytest.approx(float(cost(table, U85_128).ms), rel=1e-6)
    assert float(longer.macs) == float(table.macs)
    with pytest.raises(ValueError, match="cannot pad"):
        pad(table, 3)


def test_what_has_no_price_is_named() -> None:
    graph = hand_network(0, False).graph
    loose = dataclasses.replace(graph.nodes[0], op="bias")
    with pytest.raises(ValueError, match=r"'stem'.*fuse the graph first"):
        layer_table(dataclasses.replace(graph, nodes=(loose, *graph.nodes[1:])))
    spread = dataclasses.replace(graph.nodes[0], dilation=(2, 2))
    with pytest.raises(ValueError, match="dilation"):
        layer_table(dataclasses.replace(graph, nodes=(spread, *graph.nodes[1:])))
    with pytest.raises(ValueError, match="8 or 16 bits"):
        layer_table(graph, bits=4)


def test_bits_reach_every_row() -> None:
    table = layer_table(hand_network(0, False).graph, bits=16)
    assert bool(jnp.all(table.bits == 16))
    assert float(cost(table, U85_128).ms) > float(cost(layer_table(hand_network(0, False).graph), U85_128).ms)
