"""The block search agrees with the compiler's on real layers, and never chooses a block that does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.npu.blocks import choose, part_kernel_first, whole_kernel
from research.npu.chip import U55_128, U85_128, U85_512, Chip
from research.npu.referee import referee
from research.npu.table import CONV, DEPTHWISE, layer_names, layer_table
from tests.npu.networks import hand_network, rows

CHIPS = (U85_128, U85_512, U55_128)
SAME_BLOCK = {"Ethos-U85-128": 0.95, "Ethos-U85-512": 0.9, "Ethos-U55-128": 0.95}


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_blocks_and_traversal_are_the_compilers(chip: Chip) -> None:
    same = []
    for index in range(3):
        network = hand_network(index, False)
        table = layer_table(network.graph)
        blocks = {sparse: choose(table, chip, sparse=sparse) for sparse in (False, True)}
        names, full = layer_names(network.graph), np.asarray(whole_kernel(table))
        for layer in referee(network.model, chip).layers:
            row = names.index(layer.name)
            if not full[row]:
                continue
            block = blocks[layer.weight_format == "Sparse2_4"]
            assert bool(block.part_kernel[row]) == (layer.traversal == "PartKernel"), layer.name
            same.append((float(block.oh[row]), float(block.ow[row]), float(block.oc[row])) == layer.ofm_block)
    assert np.mean(same) >= SAME_BLOCK[chip.name]


@given(st.integers(1, 400), st.sampled_from([1, 3, 5]))
def test_traversal_formula(channels: int, kernel: int) -> None:
    table = rows({"ic": channels, "kh": kernel, "kw": kernel})
    k = kernel * kernel
    for sparse in (False, True):
        step, least, deep = (10, 4, 128) if sparse else (5, 2, 64)
        by_kernel = channels / (-(-channels // 16) * 16) * k / (k // step * step + max(k % step, least))
        by_depth = channels / (-(-channels // deep) * deep)
        if abs(by_kernel - by_depth) > 1e-6:
            assert bool(part_kernel_first(table, U85_128, sparse=sparse)[0]) == (by_kernel > by_depth)


@given(
    size=st.integers(1, 96),
    channels=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    kernel=st.sampled_from([1, 3, 5, 7]),
    depthwise=st.booleans(),
    chip=st.sampled_from(CHIPS),
)
def test_every_block_fits(
    size: int, channels: tuple[int, int], kernel: int, depthwise: bool, chip: Chip
) -> None:
    ic, oc = (channels[0], channels[0]) if depthwise else channels
    op = DEPTHWISE if depthwise else CONV
    table = rows(
        {
            "op": op,
            "ih": size,
            "iw": size,
            "oh": size,
            "ow": size,
            "ic": ic,
            "oc": oc,
            "kh": kernel,
            "kw": kernel,
        }
    )
    block = choose(table, chip, sparse=False)
    values = [float(v[0]) for v in block]
    assert all(np.isfinite(values))
    oh, ow, depth = values[:3]
    assert oh <= chip.block_limit[0]
    assert ow <= chip.block_limit[1]
    assert depth <= chip.block_limit[2]
    whole = 2 if chip.family == "u85" and depthwise else 1
    smallest = float(block.uh[0] * block.uw[0]) * 16
    assert oh * ow * depth * 4 <= max(max(split[1] for split in chip.ram_splits) * whole, smallest * 4)


def test_the_search_carries_no_gradient() -> None:
    table = rows({"oc": 96.0})
    slope = jax.grad(lambda oc: jnp.sum(choose(table._replace(oc=oc), U85_128, sparse=False).oc))(table.oc)
    assert float(slope[0]) == 0.0
