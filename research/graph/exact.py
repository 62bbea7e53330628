"""Runs a program as LiteRT's reference kernels do, to the last integer, in JAX: jitted and batched.

Integer nodes are exact (`exact_layers`, `exact_ops`), float nodes have their meaning in float32 (`interpret`).
64-bit numbers stay inside the integer nodes: the caller's setting and all that comes out are 32-bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from research.graph.exact_fixed import away
from research.graph.exact_layers import Site
from research.graph.exact_ops import OPS
from research.graph.interpret import ACTIVATION_BOUNDS, apply_float
from research.graph.ir import BINARY, WEIGHTED, Node, check
from research.graph.program import LIMITS, Affine, IntegerWeights, Program
from research.graph.weights import weights_of

Array = jax.Array | np.ndarray
NO_INTEGERS = IntegerWeights(np.zeros(0, np.int8), np.zeros(0, np.float32), np.zeros(0, np.int32))
FUSING = (*WEIGHTED, "add", "sub", "mul", "div", "avg_pool", "max_pool")  # may have a fused activation


def _check(program: Program, node: Node) -> None:
    """ValueError for an integer node that LiteRT's reference kernels do not compute."""
    op, kinds = node.op, [program.dtype(t) for t in (*node.inputs, node.output)]
    if set(kinds) == {"float32"} or (op == "quantize" and kinds != ["int16", "uint8"]):
        return
    kind, formats = kinds[-1], [program.scales.get(t, Affine(1.0, 0)) for t in (*node.inputs, node.output)]
    integers, scale = program.integers.get(node.output, NO_INTEGERS), 2.0**-8 if kind == "int8" else 2.0**-15
    squashed = op in ("logistic", "softmax") or (op, kind) == ("tanh", "int16")
    biases = ["int32"] if kind == "int8" else ["int64"] if op == "depthwise" else ["int32", "int64"]
    clamps = [b for name, b in ACTIVATION_BOUNDS.items() if kind == "int8" or name != "relu_n1_to_1"][1:]
    faults = {
        "mixes formats; put quantize nodes around it": len(set(kinds)) > 1,
        "LiteRT has no such kernel; use another format": op not in OPS or kind == "uint8",
        "LiteRT has only an int8 kernel": kind == "int16" and op in ("hard_swish", "depth_to_space", "prelu"),
        f"has no fused {node.activation}; use a clamp": node.activation != "none" and op not in FUSING,
        f"clamps to {node.bounds}, which is none of {clamps}": op == "clamp" and node.bounds not in clamps,
        "the program has no integers for it": op in (*WEIGHTED, "constant") and integers is NO_INTEGERS,
        f"needs a bias of {' or '.join(biases)}": op in WEIGHTED and integers.bias.dtype.name not in biases,
        "needs one scale and zero point": op == "concat" and kind == "int8" and len(set(formats)) > 1,
        f"needs an output scale of {scale}": squashed and abs(formats[-1].scale / scale - 1) > 1e-3,
    }
    for what, wrong in faults.items():
        if wrong:
            raise ValueError(f"{node.output!r} ({op}, {'/'.join(dict.fromkeys(kinds))}): {what}")


def integer_bounds(out: Affine, bounds: tuple[float, float]) -> tuple[int, int]:
    """The integers of real bounds, from quotients in float32 (CalculateActivationRangeQuantized)."""
    quotients = np.clip(np.asarray(bounds, np.float32) / np.float32(out.scale), -(2.0**30), 2.0**30)
    low, high = np.clip(away(quotients) + out.zero_point, *LIMITS[out.dtype])
    return int(low), int(high)


def _integer(program: Program, node: Node, inputs: Sequence[jax.Array]) -> jax.Array:
    out, rank = program.scales[node.output], max((v.ndim for v in inputs), default=0)
    if node.op in (*BINARY, "matmul"):
        inputs = [v.reshape((1,) * (rank - v.ndim) + v.shape) for v in inputs]
    ins, integers = (program.scales[i] for i in node.inputs), program.integers.get(node.output, NO_INTEGERS)
    site = Site(node, tuple(ins), out, program.graph.shape(node.output), integers)
    with jax.enable_x64(True):
        result = OPS[node.op](site, *inputs)
        bounds = integer_bounds(out, node.bounds or ACTIVATION_BOUNDS[node.activation])
        return jnp.clip(result, *bounds).astype(out.dtype)


def _quantised(x: jax.Array, to: Affine) -> jax.Array:
    """AffineQuantize. XLA turns x / scale into a product, which rounds otherwise, but in double not by enough."""
    with jax.enable_x64(True):
        quotient = (x.astype(jnp.float64) / to.scale).astype(jnp.float32)
    nearest = lax.round(quotient, lax.RoundingMethod.AWAY_FROM_ZERO)
    return jnp.clip(nearest + to.zero_point, *LIMITS[to.dtype]).astype(to.dtype)


def _evaluator(program: Program) -> Callable[..., dict[str, jax.Array]]:
    graph, scales = program.graph, program.scales
    check(graph)
    for node in graph.nodes:
        _check(program, node)
    floats = tuple(n for n in graph.nodes if n.output not in scales)
    weights = weights_of(replace(graph, nodes=floats), program.params)
    reads = [f"{program.dtype(i)} {('N', *graph.shape(i)[1:])}" for i in graph.inputs]

    def evaluate(*inputs: Array) -> dict[str, jax.Array]:
        got = [f"{v.dtype} {('N', *v.shape[1:])}" for v in inputs]
        if got != reads:
            raise ValueError(f"the program reads {', '.join(reads)}; got {', '.join(got)}")
        found = {name: jnp.asarray(value) for name, value in zip(graph.inputs, inputs, strict=True)}
        for node in graph.nodes:
            values, made = [found[i] for i in node.inputs], node.output in scales
            source = scales.get(node.inputs[0]) if node.inputs else None
            if made and (source or not values):
                found[node.output] = _integer(program, node, values)
            elif made:
                found[node.output] = _quantised(values[0], scales[node.output])
            elif source:
                centred = values[0].astype(jnp.int32) - source.zero_point
                found[node.output] = centred.astype(jnp.float32) * np.float32(source.scale)
            else:
                found[node.output] = apply_float(node, values, weights, graph.shape(node.output))
        return found

    return evaluate


def values(program: Program, inputs: Sequence[Array]) -> dict[str, jax.Array]:
    """Every tensor of the program by name, [N, ...] in its own dtype. Inputs and errors as `compile_exact`."""
    return jax.jit(_evaluator(program))(*inputs)


def compile_exact(program: Program) -> Callable[..., tuple[jax.Array, ...]]:
    """A jitted function from the program's inputs, each [N, ...] in its own dtype, to a tuple of its outputs.

    It is traced once for every N. ValueError, naming node and dtype, for what LiteRT's reference kernels do not
    compute; calling it raises ValueError for inputs of another number, dtype or shape.
    """
    evaluate = _evaluator(program)
    return jax.jit(lambda *inputs: tuple(map(evaluate(*inputs).__getitem__, program.graph.outputs)))
