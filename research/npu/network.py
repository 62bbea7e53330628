"""A .tflite file as the rows that are priced: precision, 2:4 and encoded bytes from the file itself."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from research.graph.ir import Graph
from research.graph.read import read
from research.npu.liveness import tensor_bits
from research.npu.table import HOST, LayerTable, layer_names, layer_table
from research.npu.weights import with_kernels


class Network(NamedTuple):
    """What a file says: `names[i]` is the tensor that row i of `table` makes; `weights` counts the parameters."""

    graph: Graph
    names: tuple[str, ...]
    table: LayerTable
    bits: Mapping[str, int]  # of an element of each tensor, 8 or 16
    weights: int
    kernels: Mapping[str, np.ndarray] = {}  # int8, of each layer's tensor; missing: nobody knows them


def read_network(model: bytes) -> Network:
    """The rows of a quantised .tflite, int8, int16x8 or mixed. What computes in float is left to the CPU.

    Raises ValueError, one line, for a damaged file, an operator that is not read, and a float network.
    """
    program = read(bytes(model))
    # A tensor without axes, as a number in an operation, is priced as one element.
    tensors = tuple(replace(t, shape=t.shape or (1,)) for t in program.graph.tensors)
    graph = replace(program.graph, tensors=tensors)
    if not program.integers and not program.scales:
        raise ValueError("this is a float network: an NPU runs integers, so quantise it to int8 first")
    types = [program.dtype(node.output) for node in graph.nodes]
    # A change of format runs at the width that it reads (EstimateMacCyclesPerBlock).
    reads = [program.dtype((*node.inputs, node.output)[0]) for node in graph.nodes]
    table = layer_table(graph)
    bits = [
        16.0 if "int16" in (read if node.op == "quantize" else f"{made} {read}") else 8.0
        for node, made, read in zip(graph.nodes, types, reads, strict=True)
    ]
    floats = np.array(
        [
            t == "float32" and n.op not in ("quantize", "constant")
            for t, n in zip(types, graph.nodes, strict=True)
        ]
    )
    kernels = {
        node.kernel: program.integers[node.output].kernel
        for node in graph.nodes
        if node.kernel and node.output in program.integers
    }
    shared = {path: k for path, k in kernels.items() if k.dtype == np.int8}
    table = with_kernels(table, graph, shared)
    op = np.where(floats, HOST, np.asarray(table.op))
    table = table._replace(op=jnp.asarray(op, jnp.float32), bits=jnp.asarray(bits, jnp.float32))
    known = {n.output: kernels[n.kernel] for n in graph.nodes if n.kernel in kernels}
    weights = sum(int(k.size) for k in kernels.values())
    return Network(graph, layer_names(graph), table, tensor_bits(graph, bits), weights, known)
