"""Rules for the primitives that move numbers without changing them: reshape, transpose, slice, pad, concat."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from math import prod
from types import MappingProxyType

import jax.numpy as jnp
import numpy as np

from research.graph.arithmetic import Attributes, Rule
from research.graph.ir import Node, Shape
from research.graph.values import Comparison, Draft, Traced, Value, Weight, uniform


def _value(draft: Draft, value: Traced) -> Value:
    return value if isinstance(value, Value) else Value(draft.read(value))


def seen_as(draft: Draft, value: Traced, shape: Shape) -> Traced:
    """A tensor, parameter or constant in another shape of the same size."""
    if isinstance(value, Weight) and value.size == prod(shape):
        return value._replace(view=shape)
    return (
        value.reshape(shape) if isinstance(value, np.ndarray) else draft.reshape(_value(draft, value), shape)
    )


def transposed(draft: Draft, value: Traced, axes: tuple[int, ...]) -> Traced:
    """A tensor, parameter or constant with its axes in another order."""
    if axes == tuple(range(len(axes))):
        return value
    if isinstance(value, np.ndarray):
        return value.transpose(axes)
    return draft.transpose(_value(draft, value), axes)


def reversed_along(draft: Draft, value: Traced, axes: tuple[int, ...]) -> Traced:
    """A tensor, parameter or constant with these axes running backwards."""
    if isinstance(value, np.ndarray):
        return np.flip(value, axes)
    shape = draft.shape(value)
    spans = [(s - 1, -1) if a in axes else (0, 1) for a, s in enumerate(shape)]
    return draft.cut(_value(draft, value), spans, shape)


def _reshape(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    """lax.reshape, which may permute first, and squeeze."""
    order = attributes["dimensions"] if "new_sizes" in attributes else None
    value = operands[0] if order is None else transposed(draft, operands[0], tuple(order))
    return seen_as(draft, value, attributes["out"])


def _broadcast(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    value, shape, axes = operands[0], attributes["out"], list(attributes["broadcast_dimensions"])
    own = draft.shape(value)
    if isinstance(value, Weight):
        last = (value.size,) == own[-1:] == shape[-1:] and axes[-1] == len(shape) - 1
        if value.size == 1 or last:
            return value._replace(view=shape)
    value = seen_as(draft, value, tuple(own[axes.index(a)] if a in axes else 1 for a in range(len(shape))))
    return value if draft.shape(value) == shape else draft.broadcast(_value(draft, value), shape)


def _slice(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    begins = attributes["start_indices"]
    spans = list(zip(begins, attributes["strides"] or (1,) * len(begins), strict=True))
    return draft.cut(_value(draft, operands[0]), spans, attributes["out"])


def _split(draft: Draft, operands: list[Traced], attributes: Attributes) -> list[Traced]:
    value, axis, sizes = _value(draft, operands[0]), attributes["axis"], [int(s) for s in attributes["sizes"]]
    shape, parts = draft.shape(value), list[Traced]()
    for begin, size in zip(accumulate([0, *sizes]), sizes, strict=False):
        spans = [(begin if a == axis else 0, 1) for a in range(len(shape))]
        parts.append(draft.cut(value, spans, (*shape[:axis], size, *shape[axis + 1 :])))
    return parts


def _pad(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    number, config = uniform(operands[1]), attributes["padding_config"]
    if number is None or any(interior for _, _, interior in config):
        raise ValueError("it pads between the entries, or with something other than one constant number")
    return draft.pad(_value(draft, operands[0]), [(int(a), int(b)) for a, b, _ in config], number)


def _concat(draft: Draft, operands: list[Traced], axis: int) -> Traced:
    return draft.add_node(Node("concat", tuple(draft.read(v) for v in operands), "", axis=axis))


def _stack(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    axis, out = int(attributes["axis"]), attributes["out"]
    return _concat(draft, [seen_as(draft, v, (*out[:axis], 1, *out[axis + 1 :])) for v in operands], axis)


def _keep(draft: Draft, operands: list[Traced], attributes: Attributes) -> list[Traced]:
    kind = attributes.get("new_dtype", jnp.float32)
    if not jnp.issubdtype(kind, jnp.floating) or isinstance(operands[0], Comparison):
        raise ValueError(f"it turns a tensor or comparison into {kind}")
    return operands


def _name(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    if not isinstance(operands[0], Value):
        return operands[0]
    value = Value(draft.read(operands[0]))
    draft.name(value.tensor, attributes["name"])
    return value


RULES: Mapping[str, Rule] = MappingProxyType({
    "reshape": _reshape, "squeeze": _reshape, "broadcast_in_dim": _broadcast, "slice": _slice, "split": _split,
    "transpose": lambda draft, operands, given: transposed(draft, operands[0], tuple(given["permutation"])),
    "rev": lambda draft, operands, given: reversed_along(draft, operands[0], tuple(given["dimensions"])),
    "concatenate": lambda draft, operands, given: _concat(draft, operands, int(given["dimension"])),
    "pad": _pad, "stack": _stack, "name": _name, "convert_element_type": _keep,
    "copy": _keep, "sharding_constraint": _keep, "stop_gradient": _keep, "optimization_barrier": _keep,
})  # fmt: skip
