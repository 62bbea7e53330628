"""From a JAX function to the graph: one abstract trace to a jaxpr, then a walk that names what it finds.

No array is computed: parameters and image may be shapes only. Inner calls (jit, custom_jvp, remat, closed
calls) are walked as if they were written in place; equations that involve only constants are evaluated; of a
`lax.platform_dependent` the default is taken, whatever this machine is.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from research.graph.composites import COMPOSITES
from research.graph.ir import Graph, check
from research.graph.primitives import RULES
from research.graph.rewrite import drop_dead, renumber
from research.graph.values import Comparison, Draft, Traced, Value, Weight
from research.graph.weights import Params

CALLS = frozenset({
    "jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint",
    "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_lin",
})  # fmt: skip

ADVICE: Mapping[str, str] = MappingProxyType({
    name: advice
    for names, advice in (
        ("scan while cumsum", "unroll it with a Python loop"), ("reduce_min", "negate, take the maximum, negate"),
        ("cond platform_index", "choose the branch before tracing, or give platform_dependent a default"),
        ("sort argmax argmin top_k", "do it on the outputs, after the network"),
        ("gather dynamic_slice", "take slices at fixed positions and concatenate them"),
        ("tile scatter scatter-add dynamic_update_slice", "concatenate slices"),
        ("erf erfc", "use jax.nn.gelu(x, approximate=True), silu or hard_swish"),
        ("expm1 log1p ne", "use relu, leaky_relu, silu or hard_swish"),
        ("log sin cos", "compute it before the network, or on its outputs"),
        ("select_n", "use jnp.where for relu, leaky_relu, PReLU and clip, or with a mask known while tracing"),
        ("sign round floor convert_element_type", "keep float32: quantisation comes after tracing"),
        ("random_seed random_wrap random_bits", "pass deterministic=True, or random numbers as parameters"),
        ("conv_general_dilated", "use a plain, grouped, dilated or transposed conv over H, W with its own kernel"),
        ("jit", "use jax.image.resize of H, W: nearest by whole factors, bilinear upwards or antialias=False"),
        ("reduce_window_max reduce_window_sum", "pool H, W with padding 'SAME' or 'VALID', or after a relu"),
        ("fft complex", "keep real and imaginary parts as channels"), ("name", "give every tensor one name"),
        ("pad", "use jnp.pad with one constant number"),
    )
    for name in names.split()
})  # fmt: skip

STDLIB = sysconfig.get_paths()["stdlib"]
DEFAULT_ADVICE = "use the operations that research/graph/ir.py lists"


def _where(equation: JaxprEqn, around: str) -> str:
    """file:line (function) of the user's code: the innermost frame outside installed packages, or `around`."""
    frames: tuple[Any, ...] = getattr(equation.source_info.traceback, "frames", ())
    for frame in frames:
        if "site-packages" not in frame.file_name and not frame.file_name.startswith((STDLIB, "<")):
            return f"{frame.file_name}:{frame.line_num} ({frame.function_name})"
    return around


class _Refused(ValueError):
    """Says what cannot be traced, where and why."""


def _inner(equation: JaxprEqn) -> ClosedJaxpr:
    for value in (equation.params.get(k) for k in ("jaxpr", "call_jaxpr", "fun_jaxpr")):
        if isinstance(value, ClosedJaxpr):
            return value
        if isinstance(value, Jaxpr):
            return ClosedJaxpr(value, ())
    raise ValueError("it hides its body")


def _constant(equation: JaxprEqn, operands: list[Traced]) -> list[Traced]:
    results = equation.primitive.bind(*(jax.numpy.asarray(v) for v in operands), **equation.params)
    results = results if equation.primitive.multiple_results else [results]
    if any(jax.numpy.issubdtype(r.dtype, jax.dtypes.prng_key) for r in results):
        raise ValueError("it draws random numbers")
    return [np.asarray(r) for r in results]


def _follow(draft: Draft, equation: JaxprEqn, inputs: list[Traced], place: str) -> list[Traced]:
    """What one equation makes of its inputs."""
    name, given = equation.primitive.name, equation.params
    if name == "platform_index" and None in given["platforms"]:
        return [np.asarray(given["platforms"].index(None))]
    if name == "cond" and isinstance(inputs[0], np.ndarray):
        return _walk(draft, given["branches"][int(inputs[0])], inputs[1:], place)
    if name in CALLS:
        recognise = COMPOSITES.get(str(given.get("name"))) if len(inputs) == 1 else None
        made = recognise(draft, draft.read(inputs[0]), equation) if recognise else None
        return _walk(draft, _inner(equation), inputs, place) if made is None else [made]
    if name != "platform_index" and all(isinstance(v, np.ndarray) for v in inputs):
        return _constant(equation, inputs)
    if name not in RULES:
        raise ValueError("the graph has no such operation")
    found = RULES[name](draft, inputs, {**given, "out": getattr(equation.outvars[0].aval, "shape", ())})
    return found if isinstance(found, list) else [found]


def _walk(draft: Draft, closed: ClosedJaxpr, operands: list[Traced], around: str) -> list[Traced]:
    known: dict[Any, Traced] = dict(zip(closed.jaxpr.invars, operands, strict=True))
    known.update(zip(closed.jaxpr.constvars, (np.asarray(c) for c in closed.consts), strict=True))

    def read(atom: Any) -> Traced:
        return np.asarray(atom.val) if isinstance(atom, Literal) else known[atom]

    for equation in closed.jaxpr.eqns:
        name, place = equation.primitive.name, _where(equation, around)
        try:
            results = _follow(draft, equation, [read(atom) for atom in equation.invars], place)
            for result, variable in zip(results, equation.outvars, strict=True):
                if not isinstance(result, Comparison) and draft.shape(result) != variable.aval.shape:
                    raise ValueError(f"the graph would make {draft.shape(result)} of it")
        except _Refused:
            raise
        except ValueError as error:
            advice = ADVICE.get(name, DEFAULT_ADVICE)
            raise _Refused(f"cannot trace {name!r} at {place}: {error}; {advice}") from None
        known.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def trace(fn: Callable[[Any, Any], Any], params: Params, image: Any) -> Graph:
    """The graph of `fn(params, image)`, unfused.

    params: nested dictionary of arrays or ShapeDtypeStructs; the graph knows each by its "/"-joined path.
    image: array or ShapeDtypeStruct [1, ...], one image [1, H, W, C] as a rule, or a tuple of them. Tensors
    marked by `jax.ad_checkpoint.checkpoint_name` carry that name, others are named by operation and position
    ("conv_3"). Functions that compute the same, in the same order and with the same sites, give graphs with
    the same `hash`. What follows from parameters alone becomes nodes on `constant` nodes, to be folded later.
    ValueError, with primitive and source line, for what the graph cannot say.
    """
    draft = Draft()
    operands: list[Traced] = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        operands.append(Weight(name, int(np.prod(leaf.shape)), tuple(leaf.shape)))
    sources = []
    for leaf in jax.tree.leaves(image):
        if len(leaf.shape) < 2 or leaf.shape[0] != 1:
            raise ValueError(f"trace needs one image [1, H, W, C], got shape {tuple(leaf.shape)}")
        sources.append(draft.new_tensor(leaf.shape))
    outputs = _walk(
        draft, jax.make_jaxpr(fn)(params, image), [*operands, *map(Value, sources)], "the function"
    )
    made = [draft.read(v) for v in outputs]
    if not made or any(name in draft.fixed for name in made):
        raise ValueError("an output of the traced function does not depend on the image")
    graph, _ = drop_dead(draft.graph(tuple(sources), tuple(made)))
    graph = renumber(graph)
    check(graph)
    return graph
