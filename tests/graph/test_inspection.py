"""Facts about a file, and the NPU's 2:4 condition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.graph.export import export
from research.graph.inspection import inspect, is_two_of_four, min_zeros_of_four
from research.graph.interpret import observe
from research.graph.rewrite import fuse
from research.graph.trace import trace
from tests.graph.samples import inverted_residual, two_of_four


@given(st.integers(1, 9), st.integers(0, 10**6))
def test_zeros_of_four_by_counting(channels: int, seed: int) -> None:
    kernel = np.random.default_rng(seed).integers(-1, 2, (3, 2, channels))
    groups = [
        row[start : start + 4] for row in kernel.reshape(-1, channels) for start in range(0, channels, 4)
    ]
    assert min_zeros_of_four(kernel) == min(4 - np.count_nonzero(group) for group in groups)


def test_the_last_group_counts_missing_channels_as_zeros() -> None:
    full = np.ones((1, 8))
    assert min_zeros_of_four(full[:, :1]) == 3
    assert [is_two_of_four("dense", full[:, :n]) for n in (1, 2, 3, 4, 6)] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert not is_two_of_four("depthwise", np.zeros((1, 3, 3, 8)))


def test_facts_of_an_exported_network() -> None:
    net = inverted_residual()
    sparse = dict(net.params, head=dict(net.params["head"], kernel=two_of_four(net.params["head"]["kernel"])))
    graph, _ = fuse(trace(net.fn, sparse, net.image))
    facts = inspect(export(graph, sparse, observe(graph, sparse, net.images())))
    assert [f.name for f in facts] == [n.output for n in graph.nodes]
    by_name = {f.name: f for f in facts}
    stem, deep, add, head = (by_name[n] for n in ("stem", "b1/depthwise", "b0/add", "head"))
    assert (stem.op, stem.kernel_shape, stem.weight_bytes) == ("CONV_2D", (8, 3, 3, 1), 72)
    assert (stem.input_shapes, stem.output_shape, stem.dtype) == (((1, 16, 16, 1),), (1, 8, 8, 8), "int8")
    assert (deep.op, deep.kernel_shape, deep.min_zeros_of_4) == ("DEPTHWISE_CONV_2D", (1, 3, 3, 16), -1)
    assert (add.op, add.kernel_shape, len(add.input_shapes)) == ("ADD", (), 2)
    assert head.two_of_four
    assert head.weight_zeros >= head.weight_bytes // 2
    assert not by_name["b0/expand"].two_of_four
    assert all(f.weight_min >= -127 and f.weight_max <= 127 for f in facts)


def test_only_models_can_be_inspected() -> None:
    with pytest.raises(ValueError, match="not a TFLite model"):
        inspect(b"hello, world")
