"""Many networks at once are priced as one by one; blocks are compared with what the compiler recorded."""

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest

from research.bench import population
from research.bench.pricing import Priced, blocks_agree, plan_one, plans_agree, price_all
from research.bench.recipes import make
from research.npu import U55_128, U85_128, U85_512, Network, Verdict, cost, pad, read_network, referee

MODELS = [make(*one).model for one in population.networks(21, 3)]
NETWORKS = [read_network(model) for model in MODELS]


class Layer(NamedTuple):
    name: str
    block: tuple[int, ...]
    mac_cycles: float


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    return [referee(model, U85_128) for model in MODELS]


def test_a_batch_is_priced_as_one_by_one() -> None:
    for network, priced in zip(NETWORKS, price_all(NETWORKS, U55_128), strict=True):
        alone = cost(pad(network.table, 64), U55_128)
        own = np.asarray(alone.cycles - alone.host_cycles, np.float64)[: len(network.names)]
        np.testing.assert_allclose([priced.cycles_of(name) for name in network.names], own, rtol=1e-6)
        assert priced.total == pytest.approx(own.sum(), rel=1e-6)
        assert priced.cycles_of("not there") == 0
        assert priced.sram_kb > 10


def test_switches_make_networks_no_faster_and_unknown_ones_are_refused() -> None:
    before = [p.total for p in price_all(NETWORKS, U55_128)]
    for name in ("Grouping", "WeightBuffering"):
        after = [p.total for p in price_all(NETWORKS, U55_128, name)]
        assert all(b >= a * (1 - 1e-6) for a, b in zip(before, after, strict=True))
    assert max(np.array(after) / before) > 1.05
    for price in (
        lambda name: price_all(NETWORKS, U55_128, name),
        lambda name: plan_one(NETWORKS[0], U55_128, name),
    ):
        with pytest.raises(ValueError, match="did you mean 'Grouping'"):
            price("Groupings")
    with pytest.raises(ValueError, match="no FMStaging"):
        price_all(NETWORKS, U55_128, "FMStaging")


def test_the_mac_formula_and_the_blocks_are_mostly_the_compilers(verdicts: list[Verdict]) -> None:
    found = blocks_agree(NETWORKS, verdicts, U85_128)
    assert found.layers >= 30
    assert found.macs >= 0.9
    assert found.blocks >= 0.6


def test_blocks_that_are_not_the_compilers_are_seen(verdicts: list[Verdict]) -> None:
    """Verdicts of another chip are not agreed with; a block that is altered is not the same."""
    other = [referee(model, U85_512) for model in MODELS]
    assert blocks_agree(NETWORKS, other, U85_128).macs < 0.5
    changed = [
        dataclasses.replace(v, layers=tuple(dataclasses.replace(x, ofm_block=(1, 1, 16)) for x in v.layers))
        for v in verdicts
    ]
    assert blocks_agree(NETWORKS, changed, U85_128).blocks < 0.1
    assert blocks_agree([], [], U85_128).layers == 0


def test_plans_are_compared_layer_by_layer(verdicts: list[Verdict]) -> None:
    layers = [x for x in verdicts[0].layers if x.op == "Conv2D" and x.rows == 1][:4]
    plan = [Layer(x.name, x.ofm_block, x.mac_cycles) for x in layers]
    plan[1] = plan[1]._replace(block=(1, 1, 8))
    plan[2] = plan[2]._replace(mac_cycles=plan[2].mac_cycles + 2)
    network: list[Network] = NETWORKS[:1]
    assert len(network[0].names) > 4
    found = plans_agree([Priced({}, 1.0, 1.0, tuple(plan))], verdicts[:1])
    assert found == (4, pytest.approx(2 / 3), 0.75)
