"""The cycle formulas, given the compiler's own blocks, give the compiler's own cycles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.npu.blocks import Block
from research.npu.chip import U55_128, U85_128, U85_512, Chip
from research.npu.cycles import block_count, mac_cycles_per_block, op_cycles
from research.npu.referee import referee
from research.npu.rounding import EXACT, THROUGH
from research.npu.table import ADD, FREE, LayerTable, layer_names, layer_table
from research.npu.verdict import LayerVerdict
from tests.npu.networks import block_of, hand_network, rows


def recorded_block(layer: LayerVerdict, chip: Chip) -> Block:
    microblock = layer.microblock if chip.family == "u85" else chip.microblocks[0]
    part = layer.traversal == "PartKernel"
    return block_of(*layer.ofm_block, *layer.ifm_block, *microblock, part_kernel=part)


@pytest.mark.parametrize("chip", [U85_128, U85_512, U55_128], ids=lambda chip: chip.name)
def test_mac_cycles_match_the_compiler_given_its_blocks(chip: Chip) -> None:
    compared = 0
    for index, sparse in ((0, False), (1, True), (2, True)):
        network = hand_network(index, sparse)
        table, names = layer_table(network.graph), layer_names(network.graph)
        for layer in referee(network.model, chip).layers:
            row = names.index(layer.name)
            if layer.op in ("Add", "Relu6"):
                continue
            one = LayerTable(*(column[row : row + 1] for column in table))
            half = layer.weight_format == "Sparse2_4"
            found = op_cycles(one, recorded_block(layer, chip), chip, sparse=half, rounding=EXACT)
            assert float(found.mac[0]) == pytest.approx(layer.mac_cycles, rel=2e-3, abs=1.5), layer.name
            compared += 1
    assert compared > 40


@given(
    pixels=st.integers(1, 8),
    channels=st.integers(1, 64),
    deep=st.integers(8, 256),
    kernel=st.sampled_from([1, 3]),
    sparse=st.booleans(),
)
def test_depth_first_against_plain_integers(
    pixels: int, channels: int, deep: int, kernel: int, sparse: bool
) -> None:
    held = 128 if sparse else 64
    layer = rows(
        {
            "oh": pixels,
            "ow": pixels,
            "ih": pixels,
            "iw": pixels,
            "oc": channels,
            "ic": deep,
            "kh": kernel,
            "kw": kernel,
        }
    )
    block = block_of(8, 8, 64, 10, 10, held, 1, 2, 8)
    area, depth = pixels * -(-pixels // 2), -(-channels // 8)
    clipped = min(deep, held)
    cycles = max(32, clipped // 8 * area) * kernel * kernel * depth // (2 if sparse else 1)
    if area == 1:
        cycles += 2 * kernel * kernel if depth == 1 else 2 * (kernel * kernel - 1) * depth
    cycles *= -(-deep // clipped)
    found = mac_cycles_per_block(layer, block, U85_128, sparse=sparse, rounding=EXACT)
    assert float(found[0]) == cycles


def test_rounding_changes_no_value() -> None:
    table = layer_table(hand_network(0, False).graph)
    from research.npu.blocks import choose

    block = choose(table, U85_128, sparse=False)
    exact = op_cycles(table, block, U85_128, sparse=False, rounding=EXACT)
    smooth = op_cycles(table, block, U85_128, sparse=False, rounding=THROUGH)
    for a, b in zip(exact, smooth, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_blocks_cover_the_output() -> None:
    layer = rows({"oh": 12, "ow": 12, "oc": 40})
    block = block_of(4, 12, 16, 4, 12, 64, 1, 2, 8)
    assert float(block_count(layer, block, EXACT)[0]) == pytest.approx(3 * 1 * 2.5)


def test_an_add_rides_free_on_the_chip_that_chains() -> None:
    add = {"op": ADD, "carried": 1.0}
    alone = {"op": ADD, "carried": 0.0}
    table = rows(add, alone, {"op": FREE}, {"carries_add": 1.0}, {})
    block = block_of(8, 8, 16, 8, 8, 64, 1, 2, 8, layers=5)
    chained = op_cycles(table, block, U85_128, sparse=False, rounding=EXACT).output
    assert float(chained[0]) == 0
    assert float(chained[1]) == 0.5 * 16 * 16 * 64
    assert float(chained[2]) == 0
    assert float(chained[3] - chained[4]) == 0.5 * 16 * 16 * 64
    separate = op_cycles(table, block, U55_128, sparse=False, rounding=EXACT).output
    assert float(separate[0]) == 1.5 * 16 * 16 * 64
    assert float(separate[3]) == float(separate[4])
