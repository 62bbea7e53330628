"""Generated layers as scheduled operations, beside what the compiler says of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import prod
from typing import NamedTuple

import numpy as np

from research.bench.population import random_layer
from research.bench.recipes import make
from research.graph.read import read
from research.npu.chip import U55_128, U55_256, U85_128, U85_256, U85_512, Chip
from research.npu.network import read_network
from research.npu.operation import FeatureMap, Operation, Rider, Weights
from research.npu.referee import referee
from research.npu.verdict import LayerVerdict

ALL_CHIPS = (U55_128, U55_256, U85_128, U85_256, U85_512)
LAYERS = 30
_KINDS = {"conv": "Conv2D", "depthwise": "DepthwiseConv2D", "dense": "FullyConnected", "max_pool": "MaxPool"}
_ACTIVATIONS = {"none": (), "relu": ("Relu",), "relu6": ("Relu6",)}


class Judged(NamedTuple):
    """An operation, and the compiler's row of it."""

    op: Operation
    said: LayerVerdict
    first: bool  # of its network

    @property
    def sparse(self) -> bool:
        """Runs with 2:4 weights."""
        return self.said.weight_format == "Sparse2_4"


@cache
def judged(chip: Chip, first_seed: int = 500) -> tuple[Judged, ...]:
    """Convolutions, depthwise and dense layers and pools of `LAYERS` generated layers and those around them."""
    found = []
    for seed in range(first_seed, first_seed + LAYERS):
        recipe, _, spread = random_layer(seed)
        model = make(recipe, seed, spread).model
        layers = referee(model, chip).layers
        verdict = {layer.name: layer for layer in layers}
        for op in operations(model):
            said = verdict.get(op.name)
            if said is not None and said.rows == 1 and said.op == op.kind:
                found.append(Judged(op, said, said is layers[0]))
    return tuple(found)


def operations(model: bytes) -> Iterator[Operation]:
    """The plain ones of a file: one group, a known activation, nothing that could ride on them."""
    network, program = read_network(model), read(model)
    graph, table = network.graph, network.table
    for row, node in enumerate(graph.nodes):
        if node.op not in _KINDS or node.activation not in _ACTIVATIONS or float(table.repeats[row]) != 1:
            continue
        if any(user.op not in _KINDS for user in graph.consumers(node.output)):
            continue  # it may ride on this one
        source, target = graph.shape(node.inputs[0]), graph.shape(node.output)
        if node.op == "dense" and prod(source[:-1]) != 1:
            continue
        wide = int(table.bits[row])
        ifm = FeatureMap(_hwc(source), wide, not float(table.plain_in[row]))
        ofm = FeatureMap(_hwc(target), wide, not float(table.plain_out[row]))
        values = np.asarray(program.integers[node.output].kernel) if node.op != "max_pool" else None
        if values is not None:
            values = values.reshape((1, 1, *values.shape) if values.ndim == 2 else values.shape)
        window = node.window if values is None else values.shape[:2]
        riders = tuple(Rider(kind, ofm, wide) for kind in _ACTIVATIONS[node.activation])
        yield Operation(
            node.output, _KINDS[node.op], ifm, ofm, None, (window[0], window[1]),
            (node.strides[0], node.strides[1]), (node.dilation[0], node.dilation[1]), riders=riders,
            weights=None if values is None else Weights(values, values.shape), written=not riders,
        )  # fmt: skip


def _hwc(shape: tuple[int, ...]) -> tuple[int, int, int]:
    rows, columns, channels = (1, 1, *shape)[-3:]
    return rows, columns, channels
