"""The jitted price is what a plain reading of the compiler's formulas gives, on random layers and on networks."""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.npu import oracle
from research.npu import table as kind
from research.npu.blocks import Block, choose
from research.npu.chip import U55_128, U85_128, U85_512, Chip
from research.npu.cost import cost
from research.npu.cycles import Cycles, op_cycles
from research.npu.memory import Encoded, encoded, feature_map_bytes
from research.npu.rounding import EXACT
from research.npu.table import LayerTable, layer_table
from tests.npu.networks import hand_network, rows

CHIPS = (U85_128, U85_512, U55_128)
KINDS = {
    "conv": kind.CONV, "dense": kind.DENSE, "depthwise": kind.DEPTHWISE,
    "max_pool": kind.MAX_POOL, "avg_pool": kind.AVG_POOL, "add": kind.ADD,
}  # fmt: skip
ROWS = 24
NUMBERS = ("oh", "ow", "oc", "ih", "iw", "ic", "kh", "kw", "stride", "bits")


@partial(jax.jit, static_argnames=("chip", "sparse"))
def ours(
    table: LayerTable, chip: Chip, *, sparse: bool
) -> tuple[Block, Cycles, Cycles, tuple[jax.Array, jax.Array], Encoded]:
    block = choose(table, chip, sparse=sparse)
    cycles = partial(op_cycles, table, block, chip, sparse=sparse, rounding=EXACT)
    own = encoded(table, block, chip, sparse=sparse, rounding=EXACT)
    return block, cycles(), cycles(staged=True), feature_map_bytes(table, block, chip, EXACT), own


def read_layer(row: dict[str, float]) -> oracle.Layer:
    names = {code: name for name, code in KINDS.items()}
    numbers = {name: int(row[name]) for name in NUMBERS}
    flags = {"sparse": row["sparse"] == 1, "plain_in": row["plain_in"] == 1, "plain_out": row["plain_out"] == 1}
    return oracle.Layer(kind=names[int(row["op"])], chained=int(row["carries_add"]), **numbers, **flags)


def read_shape(block: Block, at: int) -> oracle.Shape:
    return oracle.Shape(*(int(side[at]) for side in block[:-1]), kernel_first=bool(block.part_kernel[at]))


LAYER = st.fixed_dictionaries({
    "op": st.sampled_from(sorted(KINDS.values())),
    "oh": st.integers(1, 48), "ow": st.integers(1, 48), "ic": st.integers(1, 320), "oc": st.integers(1, 320),
    "kh": st.integers(1, 7), "kw": st.integers(1, 7), "stride": st.sampled_from([1, 2]),
    "bits": st.sampled_from([8, 16]), "plain_in": st.integers(0, 1), "plain_out": st.integers(0, 1),
    "carries_add": st.integers(0, 2),
})  # fmt: skip


def sound(layer: dict[str, float], sparse: bool) -> dict[str, float]:
    """The layer with what depends on its kind: only sums over channels are 2:4 or change the number of channels."""
    code, out = int(layer["op"]), dict(layer)
    if code == kind.DENSE:
        out |= dict.fromkeys(("oh", "ow", "kh", "kw", "stride"), 1)
    if code == kind.ADD:
        out |= dict.fromkeys(("kh", "kw", "stride"), 1) | {"carries_add": 0}
    if code not in (kind.CONV, kind.DENSE):
        out |= {"ic": out["oc"]}
    out |= {"ih": out["oh"] * out["stride"], "iw": out["ow"] * out["stride"]}
    return out | {"sparse": float(sparse and code in (kind.CONV, kind.DENSE))}


@given(st.lists(LAYER, min_size=ROWS, max_size=ROWS), st.sampled_from(CHIPS), st.booleans())
@settings(max_examples=20)
def test_random_layers_cost_what_the_formulas_say(
    layers: list[dict[str, float]], chip: Chip, sparse: bool
) -> None:
    sparse = sparse and chip.sparse_2_4
    given_rows = [sound(layer, sparse) for layer in layers]
    block, cycles, staged, (read, write), own = ours(rows(*given_rows), chip, sparse=sparse)
    for at, row in enumerate(given_rows):
        layer, shape = read_layer(row), read_shape(block, at)
        for found, from_sram in ((cycles, False), (staged, True)):
            said = oracle.work(layer, shape, chip, from_sram)
            told = [float(part[at]) for part in (found.mac, found.op)]
            assert told == pytest.approx([said.mac, said.op], rel=2e-6), (layer, shape)
        if layer.kind == "add":
            continue
        assert float(cycles.output[at]) == pytest.approx(oracle.work(layer, shape, chip).output, rel=2e-6)
        moved = oracle.work(layer, shape, chip).sram_bytes
        assert float(read[at] + write[at]) == pytest.approx(moved, rel=2e-6), (layer, shape)
        per_weight = kind.SPARSE_BYTES if layer.sparse else kind.DENSE_BYTES
        weights, scales = oracle.encoded_bytes(layer, shape, chip, per_weight)
        assert [float(own.weights[at]), float(own.scales[at])] == pytest.approx([weights, scales], rel=2e-5)


@pytest.mark.parametrize("index", [0, 1])
def test_networks_cost_what_the_formulas_say(index: int) -> None:
    graph = hand_network(index, False).graph
    table = layer_table(graph)
    found, block = cost(table, U85_128), choose(table, U85_128, sparse=False)
    fields = {name: np.asarray(column) for name, column in table._asdict().items()}
    compared = 0
    for at in range(len(graph.nodes)):
        row = {name: float(column[at]) for name, column in fields.items()}
        if int(row["op"]) not in KINDS.values() or row["op"] == kind.ADD or row["sparse"]:
            continue
        layer, shape = read_layer(row), read_shape(block, at)
        ways = [oracle.work(layer, shape, U85_128, staged) for staged in (False, True)]
        macs = [pytest.approx(way.mac, rel=2e-6) for way in ways]
        assert float(found.mac_cycles[at]) in macs, graph.nodes[at].output
        per_weight = row["dense_bytes_per_weight"]
        assert float(found.weight_bytes[at] + found.scale_bytes[at]) == pytest.approx(
            sum(oracle.encoded_bytes(layer, shape, U85_128, per_weight)), rel=2e-5
        )
        least = oracle.unbuffered_cycles(layer, shape, U85_128, per_weight)
        work = max(ways[1].op, ways[1].sram_bytes / U85_128.sram.bytes_per_cycle)
        assert float(found.cycles[at]) >= work * (1 - 1e-5)
        buffered = float(found.sram_bytes[at]) > ways[0].sram_bytes * (1 + 1e-6)
        if not buffered:
            assert float(found.cycles[at]) == pytest.approx(least, rel=1e-5), graph.nodes[at].output
        compared += 1
    assert compared > 15
