"""From a JAX function to the graph: one abstract trace to a jaxpr, then a walk that names what it finds.

No array is computed: parameters and image may be shapes only. Inner calls (jit, custom_jvp, remat, closed
calls) are walked as if they were written in place; equations that involve only constants are evaluated.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from research.graph.ir import Graph, check
from research.graph.primitives import RULES, tensor_of
from research.graph.rewrite import drop_dead, renumber
from research.graph.values import Draft, Traced, Value, Weight
from research.graph.weights import Params

CALLS = frozenset({
    "jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint",
    "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_lin",
})  # fmt: skip

ADVICE: Mapping[str, str] = MappingProxyType({
    "mul": "fold norms and scales into the kernel before tracing (rewrite.fold_norm)",
    "sub": "fold norms into the kernel before tracing (rewrite.fold_norm)",
    "div": "fold norms into the kernel before tracing (rewrite.fold_norm)",
    "rsqrt": "fold norms into the kernel before tracing (rewrite.fold_norm)",
    "sqrt": "fold norms into the kernel before tracing (rewrite.fold_norm)",
    "logistic": "use relu or relu6", "tanh": "use relu or relu6", "exp": "use relu or relu6",
    "erf": "use relu or relu6", "select_n": "use relu or relu6, or select before tracing",
    "conv_general_dilated": "use an NHWC conv or depthwise conv with padding 'SAME' or 'VALID'",
    "dot_general": "use x @ kernel with kernel [in, out]",
    "reduce_max": "use a max pool", "reduce_sum": "use the mean over H and W",
    "reduce_window": "use nn.max_pool or nn.avg_pool", "pad": "use padding 'SAME' of the next layer",
    "reduce_window_sum": "use an average pool with padding 'SAME' or 'VALID'",
    "reduce_window_max": "use a max pool with padding 'SAME' or 'VALID'",
    "transpose": "keep the layout NHWC", "scan": "unroll it with a Python loop",
    "while": "unroll it with a Python loop", "cond": "choose the branch before tracing",
    "add": "add a bias of one value a channel, or two tensors of one shape",
    "max": "compare with one constant number", "min": "compare with one constant number",
})  # fmt: skip

DEFAULT_ADVICE = "use conv, depthwise conv, dense, add, relu, relu6, pools, mean, concatenate or reshape"


def _where(equation: JaxprEqn) -> str:
    """file:line (function) of the user's code: the innermost frame outside installed packages."""
    stdlib = sysconfig.get_paths()["stdlib"]
    frames: tuple[Any, ...] = getattr(equation.source_info.traceback, "frames", ())
    for frame in frames:
        if "site-packages" not in frame.file_name and not frame.file_name.startswith((stdlib, "<")):
            return f"{frame.file_name}:{frame.line_num} ({frame.function_name})"
    return source_info_util.summarize(equation.source_info)


def _refuse(equation: JaxprEqn, reason: str) -> ValueError:
    name = equation.primitive.name
    return ValueError(
        f"cannot trace {name!r} at {_where(equation)}: {reason}; {ADVICE.get(name, DEFAULT_ADVICE)}"
    )


def _inner(equation: JaxprEqn) -> ClosedJaxpr:
    for value in (equation.params.get(k) for k in ("jaxpr", "call_jaxpr", "fun_jaxpr")):
        if isinstance(value, ClosedJaxpr):
            return value
        if isinstance(value, Jaxpr):
            return ClosedJaxpr(value, ())
    raise _refuse(equation, "it hides its body")


def _constant(equation: JaxprEqn, operands: list[Traced]) -> list[Traced]:
    results = equation.primitive.bind(*(jax.numpy.asarray(v) for v in operands), **equation.params)
    return [np.asarray(r) for r in (results if equation.primitive.multiple_results else [results])]


def _walk(draft: Draft, closed: ClosedJaxpr, operands: list[Traced]) -> list[Traced]:
    known: dict[Any, Traced] = dict(zip(closed.jaxpr.invars, operands, strict=True))
    known.update(zip(closed.jaxpr.constvars, (np.asarray(c) for c in closed.consts), strict=True))

    def read(atom: Any) -> Traced:
        return np.asarray(atom.val) if isinstance(atom, Literal) else known[atom]

    for equation in closed.jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        name = equation.primitive.name
        if name in CALLS:
            results = _walk(draft, _inner(equation), inputs)
        elif all(isinstance(v, np.ndarray) for v in inputs):
            results = _constant(equation, inputs)
        elif name in RULES:
            try:
                results = [RULES[name](draft, inputs, equation.params)]
            except ValueError as error:
                raise _refuse(equation, str(error)) from None
        else:
            raise _refuse(equation, "the graph has no such operation")
        known.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def trace(fn: Callable[[Any, Any], Any], params: Params, image: Any) -> Graph:
    """The graph of `fn(params, image)`, unfused.

    params: nested dictionary of arrays or ShapeDtypeStructs; the graph knows each by its "/"-joined path.
    image: array or ShapeDtypeStruct [1, H, W, C]. Tensors marked by `jax.ad_checkpoint.checkpoint_name` carry
    that name, others are named by operation and position ("conv_3"). Functions that compute the same, in the
    same order and with the same sites, give graphs with the same `hash`.
    ValueError, with primitive and source line, for what the graph cannot say.
    """
    if len(image.shape) != 4 or image.shape[0] != 1:
        raise ValueError(f"trace needs one image [1, H, W, C], got shape {tuple(image.shape)}")
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    draft = Draft()
    source = draft.new_tensor(tuple(image.shape))
    operands: list[Traced] = []
    for path, leaf in leaves:
        shape = tuple(leaf.shape)
        operands.append(
            Weight(jax.tree_util.keystr(path, simple=True, separator="/"), int(np.prod(shape)), shape)
        )
    outputs = _walk(draft, jax.make_jaxpr(fn)(params, image), [*operands, Value(source)])
    if not outputs or not all(isinstance(v, Value) for v in outputs):
        raise ValueError("an output of the traced function does not depend on the image")
    graph, _ = drop_dead(draft.graph((source,), tuple(tensor_of(v) for v in outputs)))
    graph = renumber(graph)
    check(graph)
    return graph
