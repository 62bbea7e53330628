"""Facts about a file, and the NPU's 2:4 condition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.graph.export import export
from research.graph.inspection import digest, inspect, is_two_of_four, min_zeros_of_four
from research.graph.interpret import observe
from research.graph.rewrite import fuse
from research.graph.trace import trace
from research.graph.write import file_layout, write
from tests.graph.cases import CASES, in_integers, program_of, real_values
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


@pytest.mark.parametrize("dtype", ["float32", "int8", "int16"])
@pytest.mark.parametrize("name", ["conv", "conv_grouped", "depthwise", "transpose_conv", "dense_rows"])
def test_facts_of_every_layer_with_weights(name: str, dtype: str) -> None:
    program, inputs = program_of(CASES[name])
    if dtype != "float32":
        program = in_integers(program, real_values(program, inputs), dtype)
    node, (fact,) = program.graph.nodes[-1], inspect(write(program))
    kernel = program.params["w/kernel"] if dtype == "float32" else program.integers["y"].kernel
    stored = file_layout(node.op, kernel)
    assert (fact.name, fact.dtype, fact.kernel_shape) == ("y", dtype, stored.shape)
    assert (fact.weight_min, fact.weight_max) == (kernel.min(), kernel.max())
    assert (fact.weight_bytes, fact.kernel_sha256) == (stored.nbytes, digest(stored))
    assert fact.input_shapes == (program.graph.shape("x0"),)
    assert fact.output_shape == program.graph.shape("y")


def test_only_models_can_be_inspected() -> None:
    with pytest.raises(ValueError, match=r"\.tflite"):
        inspect(b"hello, world")
