"""Bytes and bursts: exact where the compiler's count is plain arithmetic, close where its encoder decides."""

import numpy as np
import pytest

from research.npu import memory
from research.npu.blocks import choose
from research.npu.chip import U55_128, U85_128, U85_512, Chip
from research.npu.referee import referee
from research.npu.rounding import EXACT
from research.npu.table import ADD, FREE, layer_names, layer_table
from research.npu.weights import with_kernels
from tests.npu.networks import block_of, hand_network, rows

CHIPS = (U85_128, U85_512, U55_128)


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
@pytest.mark.parametrize("sparse", [False, True])
def test_encoded_weights_are_close_to_the_compilers(chip: Chip, sparse: bool) -> None:
    network = hand_network(1, sparse)
    table = with_kernels(layer_table(network.graph), network.graph, network.kernels)
    names = layer_names(network.graph)
    found = {
        s: memory.encoded(table, choose(table, chip, sparse=s), chip, sparse=s, rounding=EXACT)
        for s in (False, True)
    }
    ours = theirs = 0.0
    for layer in referee(network.model, chip).layers:
        if layer.weight_bytes:
            ours += float(found[layer.weight_format == "Sparse2_4"].weights[names.index(layer.name)])
            theirs += layer.weight_bytes
    assert ours == pytest.approx(theirs, rel=0.06)


def test_scales_are_ten_bytes_a_channel_in_whole_bricks() -> None:
    table = rows({"oc": 24.0}, {"oc": 42.0}, {"op": ADD}, {"op": FREE})
    blocks = choose(table, U85_128, sparse=False)
    newer = memory.encoded(table, blocks, U85_128, sparse=False, rounding=EXACT)
    older = memory.encoded(table, blocks, U55_128, sparse=False, rounding=EXACT)
    np.testing.assert_array_equal(newer.scales, [320, 480, 0, 0])
    np.testing.assert_array_equal(older.scales, [240, 432, 0, 0])
    np.testing.assert_array_equal(newer.weights[2:], 0)
    np.testing.assert_allclose(newer.total, newer.weights + newer.scales)


def test_short_bursts_cost_whole_ones() -> None:
    brick, plain = rows({}), rows({"plain_in": 1.0, "plain_out": 1.0, "ic": 8.0})
    block = block_of(4, 2, 32, 4, 2, 16, 1, 2, 8)
    read, write = memory.burst_cost(brick, block, U85_128)
    assert (float(read[0]), float(write[0])) == (2.0, 2.0)  # 16 channels x 2 columns of 64 bytes
    read, write = memory.burst_cost(plain, block, U85_128)
    assert (float(read[0]), float(write[0])) == (4.0, 4.0)  # 16 bytes of 64
    wide = block_of(4, 16, 32, 4, 16, 16, 1, 2, 8)
    assert [float(x[0]) for x in memory.burst_cost(brick, wide, U85_128)] == [1.0, 1.0]


def test_feature_maps_are_read_once_a_depth_block() -> None:
    layer = rows({"oc": 64.0, "ic": 20.0, "ih": 16, "iw": 16})
    block = block_of(16, 16, 32, 16, 16, 32, 1, 2, 8)
    read, write = memory.feature_map_bytes(layer, block, U85_128, EXACT)
    assert float(read[0]) == 2 * 16 * 16 * 32  # 20 channels lie in two bricks; two depth blocks
    assert float(write[0]) == 16 * 16 * 64
    assert float(memory.spatial_repeats(layer, block)[0]) == 1
    assert float(memory.spatial_repeats(layer, block_of(5, 8, 32, 5, 8, 32, 1, 2, 8))[0]) == 4 * 2


def test_an_add_reads_two_maps_unless_it_rides() -> None:
    table = rows({"op": ADD, "carried": 1.0}, {"op": ADD}, {"carries_add": 1.0}, {})
    block = block_of(16, 16, 64, 16, 16, 64, 1, 2, 8, layers=4)
    size = 16 * 16 * 64
    read, write = memory.feature_map_bytes(table, block, U85_128, EXACT)
    np.testing.assert_array_equal(read, [0, 2 * size, 2 * size, size])
    np.testing.assert_array_equal(write, [0, size, size, size])


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_block_transfer_has_the_memory_latency(chip: Chip) -> None:
    first, last = memory.block_transfer_cycles(rows({}), block_of(1, 16, 16, 1, 16, 16, 1, 2, 8), chip)
    assert float(first[0]) == chip.sram.read_latency_cycles + 256 / chip.sram.bytes_per_cycle
    assert float(last[0]) == chip.sram.write_latency_cycles + 256 / chip.sram.bytes_per_cycle
