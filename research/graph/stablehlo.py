"""A program as portable StableHLO bytes (`jax.export`), for any machine that runs XLA; and back as a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import export as jax_export

from research.graph.exact import compile_exact
from research.graph.ir import Graph
from research.graph.program import Program
from research.graph.weights import Params, weights_of


def export_stablehlo(
    network: Graph | Program,
    params: Params | None = None,
    platforms: Sequence[str] = ("cpu", "tpu"),
    batch: int | None = None,
) -> bytes:
    """The network with its weights as serialised StableHLO: float32 layers in full precision, integers exact.

    network: a program as it is, or a graph, which takes its float weights from `params`. Inputs and outputs
    are [N, ...] in the types of the program's tensors. batch: the one N the bytes are for; None for any N.
    ValueError for a program that is not well formed, weights that are missing, or an unknown platform.
    """
    if isinstance(network, Graph):
        network = Program(network, weights_of(network, params or {}).arrays)
    rows: Any = jax_export.symbolic_shape("n")[0] if batch is None else batch
    inputs = []
    for name in network.graph.inputs:
        shape = network.graph.shape(name)
        shape = (rows, *shape[1:]) if shape[:1] == (1,) else shape
        inputs.append(jax.ShapeDtypeStruct(shape, network.dtype(name)))
    with jax.default_matmul_precision("highest"):
        exported = jax_export.export(jax.jit(compile_exact(network)), platforms=tuple(platforms))(*inputs)
    return bytes(exported.serialize())


def load_stablehlo(data: bytes) -> Callable[..., tuple[jax.Array, ...]]:
    """The function behind bytes that `export_stablehlo` made: inputs [N, ...] -> every output [N, ...]."""
    call = jax.jit(jax_export.deserialize(bytearray(data)).call)

    def run(*inputs: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(call(*inputs))

    return run
