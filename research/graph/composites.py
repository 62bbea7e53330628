"""Functions of JAX that trace as many equations and are one node: recognised by name, proven by their body.

A jitted call has the name of the function; it is taken for JAX's own only where its body is, letter for letter,
what JAX's function traces to. Any other function of that name is walked as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
from jax.extend.core import JaxprEqn

from research.graph.ir import Node, Shape
from research.graph.values import Draft, Traced, Value


def _is(equation: JaxprEqn, fn: Callable[[Any], Any]) -> bool:
    """Whether the jitted call of an equation has the body that `fn` has."""
    image: Any = equation.invars[0].aval
    like = jax.ShapeDtypeStruct(image.shape, image.dtype, weak_type=image.weak_type)
    made = jax.make_jaxpr(fn)(like).jaxpr.eqns
    return len(made) == 1 and str(made[0].params.get("jaxpr")) == str(equation.params["jaxpr"])


def _hard_swish(draft: Draft, x: str, equation: JaxprEqn) -> Traced | None:
    return draft.add_node(Node("hard_swish", (x,), "")) if _is(equation, jax.nn.hard_swish) else None


def _hard_tanh(draft: Draft, x: str, equation: JaxprEqn) -> Traced | None:
    return draft.clamp(x, -1.0, 1.0) if _is(equation, jax.nn.hard_tanh) else None


def _resize(draft: Draft, x: str, equation: JaxprEqn) -> Traced | None:
    """jax.image.resize samples at half-pixel centres; TFLite has the nearest and the linear ones."""
    out: Any = equation.outvars[0].aval
    for method in ("nearest", "linear", "cubic", "lanczos3", "lanczos5"):
        for smooth in (False, True):
            if _is(equation, partial(jax.image.resize, shape=out.shape, method=method, antialias=smooth)):
                node = Node("resize", (x,), "", mode=_mode(draft.shapes[x], out.shape, method, smooth))
                return Value(x) if draft.shapes[x] == out.shape else draft.add_node(node, out.shape)
    return None


def _mode(before: Shape, after: Shape, method: str, smooth: bool) -> str:
    """Mode of the node; ValueError for what no resize node computes."""
    if len(before) != 4 or before[3] != after[3] or method not in ("nearest", "linear"):
        raise ValueError(f"it resizes {before} to {after} by {method!r}, not H, W by nearest or linear")
    sizes = list(zip(before[1:3], after[1:3], strict=True))
    if method == "linear" and smooth and any(new < old for old, new in sizes):
        raise ValueError("it smooths while it shrinks: pass antialias=False")
    if method == "nearest" and any(
        new % old and old % new for old, new in sizes
    ):  # JAX and TFLite round apart
        raise ValueError(f"it takes the nearest of {before} for {after}, which is no whole factor")
    return ("nearest" if method == "nearest" else "bilinear") + "/half_pixel"


COMPOSITES: Mapping[str, Callable[[Draft, str, JaxprEqn], Traced | None]] = MappingProxyType(
    {"hard_silu": _hard_swish, "hard_swish": _hard_swish, "hard_tanh": _hard_tanh, "_resize": _resize}
)
