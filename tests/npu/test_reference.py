"""V1 is what the story says it is."""

import pytest

from research.graph.ir import check, parameter_count
from research.npu.chip import U55_128, U85_128
from research.npu.cost import cost
from research.npu.referee import referee
from research.npu.reference import v1_graph
from research.npu.table import layer_table
from tests.npu.networks import with_weights


def test_v1_is_a_sound_graph_of_the_stated_size() -> None:
    graph = v1_graph()
    check(graph)
    assert graph.total_macs == 49_035_520
    assert parameter_count(graph) == 843_298
    assert graph.shape("image") == (1, 128, 128, 1)
    assert graph.shape("neck") == (1, 4, 4, 64)
    assert graph.shape("head") == (1, 42)


def test_v1_on_both_chips_agrees_with_the_referee() -> None:
    model, table = with_weights(v1_graph()).model, layer_table(v1_graph())
    old, new = (referee(model, chip).ms for chip in (U55_128, U85_128))
    assert float(cost(table, U55_128).ms) == pytest.approx(old, rel=0.05)
    assert float(cost(table, U85_128).ms) == pytest.approx(new, rel=0.05)
    assert new < old
