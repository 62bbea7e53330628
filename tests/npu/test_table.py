"""A graph becomes rows of the right numbers, whatever its operations."""

from typing import get_args

import jax.numpy as jnp
import numpy as np
import pytest

from research.graph.ir import UNARY, Graph, Op
from research.npu.chip import U55_128, U85_128
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


def test_every_operation_has_a_row() -> None:
    sketch = Sketch((8, 8, 12))
    x = sketch.unit("conv", "image", "a", 12)
    for op in ("sub", "mul", "div", "maximum", "minimum", "prelu"):
        x = sketch.op(op, x, sketch.constant(12))
    for op in get_args(Op):
        if op in UNARY:
            x = sketch.op(op, x)
    x = sketch.op("transpose_conv", x, kernel_shape=(3, 3, 12, 8), strides=(2, 2), recorded=(1, 17, 17, 8))
    x = sketch.op(
        "depth_to_space", sketch.op("resize", x, mode="nearest", recorded=(1, 20, 20, 8)), window=(2, 2)
    )
    x = sketch.op(
        "mean",
        sketch.op("slice", x, spans=((0, 1),) * 4, recorded=(1, 8, 8, 2)),
        axes=(1,),
        recorded=(1, 8, 2),
    )
    x = sketch.op("matmul", x, sketch.op("transpose", x, axes=(0, 2, 1)))
    x = sketch.op("pad", sketch.op("concat", x, x, axis=2), spans=((0, 0), (0, 1), (0, 0)))
    graph = sketch.graph(sketch.dense(sketch.flatten(x), "head", 4))
    used = {node.op for node in graph.nodes}
    assert set(get_args(Op)) - used == {"depthwise", "add", "avg_pool", "max_pool"}
    table = layer_table(graph)
    assert [float(m) for m in table.layer_macs] == [graph.macs(node) for node in graph.nodes]
    for chip in (U85_128, U55_128):
        found = cost(table, chip)
        assert all(bool(jnp.isfinite(field).all()) for field in found)
        assert bool((found.cycles >= 0).all())
        free = {node.op for node, cycles in zip(graph.nodes, found.cycles, strict=True) if cycles == 0}
        assert {"constant", "slice", "reshape"} <= free
    with pytest.raises(ValueError, match="8 or 16 bits"):
        layer_table(graph, bits=4)


def test_groups_and_dilations() -> None:
    sketch = Sketch((16, 16, 24))
    sketch.op("conv", "image", name="groups", kernel_shape=(3, 3, 6, 32), padding="SAME")
    sketch.op("conv", "image", name="even", kernel_shape=(3, 3, 24, 8), padding="SAME", dilation=(2, 4))
    sketch.op("conv", "image", name="odd", kernel_shape=(3, 3, 24, 8), padding="SAME", dilation=(3, 3))
    sketch.op("depthwise", "image", name="twice", kernel_shape=(3, 3, 1, 48), padding="SAME")
    graph = sketch.graph("odd")
    groups, even, odd, twice = (row(graph, name) for name in ("groups", "even", "odd", "twice"))
    assert (groups["ic"], groups["oc"], groups["repeats"]) == (6, 8, 4)
    assert (even["kh"], even["kw"]) == (3, 5)
    assert (odd["kh"], odd["kw"]) == (7, 7)
    assert (twice["oc"], twice["repeats"]) == (24, 2)


def test_sizes_of_any_rank() -> None:
    sketch = Sketch((6, 4, 8))
    tokens = sketch.op("reshape", "image", recorded=(1, 24, 8))
    wide = sketch.op("dense", tokens, name="wide", kernel_shape=(8, 5))
    graph = sketch.graph(sketch.op("mean", wide, name="mean", axes=(1,), recorded=(1, 5)))
    assert [row(graph, "wide")[name] for name in ("oh", "ow", "oc", "ic")] == [4, 6, 5, 8]
    assert [row(graph, "mean")[name] for name in ("kh", "kw", "ih", "iw", "oh", "ow", "oc")] == [
        1,
        24,
        1,
        24,
        1,
        1,
        5,
    ]


def test_constant_operands() -> None:
    sketch = Sketch((8, 8, 16))
    x = sketch.op("mul", "image", sketch.constant(16), name="by row")
    x = sketch.op("add", x, sketch.constant(1), name="by number")
    graph = sketch.graph(sketch.op("mul", x, sketch.constant(8, 8, 16), name="by map"))
    assert [row(graph, name)["constant"] for name in ("by row", "by number", "by map")] == [16, 0, 1024]


def test_bits_reach_every_row() -> None:
    table = layer_table(hand_network(0, False).graph, bits=16)
    assert bool(jnp.all(table.bits == 16))
    assert float(cost(table, U85_128).ms) > float(cost(layer_table(hand_network(0, False).graph), U85_128).ms)
