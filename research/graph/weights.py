"""Reads a graph's weights out of a parameter dictionary, nested or with "/"-joined keys."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import jax
import numpy as np

from research.graph.ir import Graph, Node

Params = Mapping[str, Any]


def flat_paths(params: Params) -> dict[str, Any]:
    """{"/"-joined path: leaf} of a nested (or already flat) dictionary of arrays."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


class Weights(NamedTuple):
    """The float32 arrays a graph reads, by path."""

    arrays: Mapping[str, np.ndarray]

    def kernel(self, node: Node) -> np.ndarray:
        """Kernel of a layer, or the value of a constant, in the layout of `node.kernel_shape`."""
        return self.arrays[str(node.kernel)].reshape(node.kernel_shape)

    def bias(self, node: Node) -> np.ndarray:
        """Bias of a node, [C]."""
        return self.arrays[str(node.bias)].reshape(-1)


def weights_of(graph: Graph, params: Params) -> Weights:
    """Every kernel and bias of the graph. ValueError for a missing path, a wrong size or NaN and infinity."""
    found = flat_paths(params) | {c.name: c.value for c in graph.constants}
    arrays: dict[str, np.ndarray] = {}
    for node in graph.nodes:
        channels = prod(graph.shape(node.output)[-1:])
        for path, size in ((node.kernel, prod(node.kernel_shape)), (node.bias, channels)):
            if path is None:
                continue
            if path not in found:
                raise ValueError(f"node {node.output!r} reads the parameter {path!r}, which was not given")
            array = np.asarray(found[path], np.float32)
            if array.size != size:
                raise ValueError(
                    f"parameter {path!r} has shape {array.shape}; {node.output!r} needs {size} numbers"
                )
            if not np.isfinite(array).all():
                raise ValueError(f"parameter {path!r} has values that are not finite")
            arrays[path] = array
    return Weights(arrays)
