"""A file is read into the rows that its graph and weights have."""

import numpy as np
import pytest

from research.graph.export import export_float
from research.npu.chip import U85_128
from research.npu.network import read_network
from research.npu.price import price
from research.npu.table import layer_names, layer_table
from research.npu.weights import with_kernels
from tests.npu.networks import Sketch, hand_network, with_weights


@pytest.mark.parametrize("sparse", [False, True])
def test_a_file_gives_the_rows_of_the_graph_it_came_from(sparse: bool) -> None:
    network = hand_network(0, sparse)
    found = read_network(network.model)
    wanted = with_kernels(layer_table(network.graph), network.graph, network.kernels)
    where = [found.names.index(name) for name in layer_names(network.graph)]
    for field in wanted._fields:
        ours, theirs = np.asarray(getattr(found.table, field))[where], np.asarray(getattr(wanted, field))
        np.testing.assert_allclose(ours, theirs, rtol=0.02, err_msg=field)
    assert set(found.bits.values()) == {8}
    assert found.weights == sum(kernel.size for kernel in network.kernels.values())


def test_a_float_network_is_refused() -> None:
    network = hand_network(0, False)
    with pytest.raises(ValueError, match="float network: an NPU runs integers"):
        read_network(export_float(network.graph, network.params))


@pytest.mark.parametrize("cut", [0, 8, 1000])
def test_a_damaged_file_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match="tflite"):
        read_network(hand_network(0, False).model[:cut])


def test_a_number_in_an_operation_is_one_element() -> None:
    sketch = Sketch((8, 8, 4))
    number = sketch.op("constant", name="two", kernel_shape=())
    graph = sketch.graph(sketch.op("mul", "image", number, name="twice"))
    found = read_network(with_weights(graph).model)
    assert all(tensor.shape for tensor in found.graph.tensors)
    assert price(found, U85_128).ms > 0
