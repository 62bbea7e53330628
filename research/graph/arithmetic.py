"""Rules for the primitives that act number by number: arithmetic, functions, bounds, choices, softmax.

A rule gets the draft, the traced operands and the parameters of the equation, with the shape of its result as
"out", and returns the traced result, or a list of them. It raises ValueError with the reason where the
equation is outside what the graph can say; `trace` adds where in the user's code that was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf, nan
from types import MappingProxyType
from typing import Any

import numpy as np

from research.graph.ir import Node, Op
from research.graph.values import Comparison, Draft, Traced, Value, Weight, uniform

Attributes = Mapping[str, Any]
Rule = Callable[[Draft, list[Traced], Attributes], Traced | list[Traced]]

COMMUTATIVE: tuple[Op, ...] = ("add", "mul", "maximum", "minimum")
NEUTRAL: Mapping[str, float] = MappingProxyType({"add": 0.0, "sub": 0.0, "mul": 1.0, "div": 1.0})


def _least(draft: Draft, value: Traced) -> str:
    """The tensor of an operand in the smallest shape that broadcasts to its own: biases become [C]."""
    if isinstance(value, Value):
        tensor = draft.read(value)
        return draft.repeated.get(tensor, tensor)
    if isinstance(value, np.ndarray):
        for axis in range(value.ndim - 1):
            first = value.take([0], axis)
            value = first if np.all(first == value) else value
    shape = draft.shape(value)
    if isinstance(value, Weight) and np.prod(shape) != value.size:
        shape = (value.size,)
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return draft.constant(value, shape)


def arithmetic(draft: Draft, op: Op, first: Traced, second: Traced) -> Traced:
    """first op second, broadcast. Commutative operations read their tensors in order, fixed ones last."""
    shapes = draft.shape(first), draft.shape(second)
    target, neutral = np.broadcast_shapes(*shapes), NEUTRAL.get(op, nan)
    if uniform(second) == neutral and shapes[0] == target:
        return first
    if uniform(first) == neutral and shapes[1] == target and op in COMMUTATIVE:
        return second
    names = [_least(draft, v) for v in (first, second)]
    if np.broadcast_shapes(*(draft.shapes[n] for n in names)) != target:
        names = [draft.read(v) for v in (first, second)]
    if op in COMMUTATIVE:
        names.sort(key=lambda name: (name in draft.fixed, name))
    return draft.add_node(Node(op, tuple(names), ""))


def _arithmetic(op: Op) -> Rule:
    return lambda draft, operands, attributes: arithmetic(draft, op, *operands)


def _function(op: Op) -> Rule:
    return lambda draft, operands, attributes: draft.add_node(Node(op, (draft.read(operands[0]),), ""))


def multiply(draft: Draft, first: Traced, second: Traced) -> Traced:
    """first * second. A constant that scales a sum, which may become a mean, is kept as its factor."""
    for value, number in ((first, second), (second, first)):
        if isinstance(value, Value) and isinstance(number, np.ndarray) and not draft.whole(value):
            shape = draft.shape(value)
            if np.broadcast_shapes(number.shape, shape) == shape:
                return Value(value.tensor, np.asarray(value.factor * number))
    return arithmetic(draft, "mul", first, second)


def divide(draft: Draft, first: Traced, second: Traced) -> Traced:
    """first / second: by a constant as a product with its reciprocal, as a softmax where it is one."""
    if isinstance(second, np.ndarray) and np.all(second != 0):
        return multiply(draft, first, np.asarray(1.0 / second.astype(np.float64)))
    return _softmax(draft, first, second) or arithmetic(draft, "div", first, second)


def _softmax(draft: Draft, over: Traced, under: Traced) -> Value | None:
    """exp(x - m) / sum(exp(x - m)) along one axis is the softmax of x for any m that has one value there."""
    if not isinstance(over, Value) or not isinstance(under, Value):
        return None
    shape, exp, mean = draft.shape(over), draft.made(over.tensor, "exp"), draft.made(under.tensor, "mean")
    if exp is None or mean is None or mean.inputs != (over.tensor,) or len(mean.axes) != 1:
        return None
    (axis,), source, rank = mean.axes, exp.inputs[0], len(shape)
    if len(draft.shape(under)) != rank or uniform(under.factor) != shape[axis] or not over.settled:
        return None
    if less := draft.made(source, "sub"):
        whole, part = (draft.shapes[i] for i in less.inputs)
        if whole == shape and ((1,) * (rank - len(part)) + part)[axis] == 1:
            source = less.inputs[0]
    swapped = [rank - 1 if a == axis else axis if a == rank - 1 else a for a in range(rank)]
    moved = draft.transpose(Value(source), swapped)
    return draft.transpose(draft.add_node(Node("softmax", (moved.tensor,), "", alpha=1.0)), swapped)


def _power(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    functions: Mapping[float | None, Op] = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt"}
    exponent = attributes["y"] if "y" in attributes else uniform(operands[1])
    if exponent in functions:
        return draft.add_node(Node(functions[exponent], (draft.read(operands[0]),), ""))
    if exponent not in (-4, -3, -2, -1, 1, 3, 4):
        raise ValueError(f"it raises to the power {exponent}: not a half, nor a small whole number")
    product = operands[0]
    for _ in range(int(abs(exponent)) - 1):
        product = multiply(draft, product, operands[0])
    return product if exponent > 0 else divide(draft, np.ones(()), product)


def _bounded(draft: Draft, op: Op, first: Traced, second: Traced) -> Traced:
    for value, bound in ((first, second), (second, first)):
        number, shape = uniform(bound), draft.shape(value)
        if number is not None and shape == np.broadcast_shapes(draft.shape(bound), shape):
            low, high = (number, inf) if op == "maximum" else (-inf, number)
            return draft.clamp(draft.read(value), low, high)
    return arithmetic(draft, op, first, second)


def _clamp(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    low, value, high = operands
    return _bounded(draft, "minimum", _bounded(draft, "maximum", value, low), high)


def _compare(draft: Draft, operands: list[Traced], above: bool) -> Traced:
    for value, bound, side in zip(operands, operands[::-1], (above, not above), strict=True):
        if (number := uniform(bound)) is not None:
            return Comparison(draft.read(value), side, number)
    raise ValueError("it compares with something other than one constant number")


def _select(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    which, *cases = operands
    if isinstance(which, np.ndarray):  # a mask: the sum of the cases, each times where it holds
        if uniform(which) is not None:
            return cases[int(which.flat[0])]
        parts = [
            np.where(m, v, 0.0) if isinstance(v, np.ndarray) else multiply(draft, v, m.astype(float))
            for v, m in zip(cases, (~which, which), strict=True)
        ]
        return arithmetic(draft, "add", *parts)
    if not isinstance(which, Comparison):
        raise ValueError("it chooses by something other than a comparison")
    x, (low, high) = which.tensor, cases if which.above else cases[::-1]
    same = [isinstance(v, Value) and draft.read(v) == x for v in (low, high)]
    if same[1] and uniform(low) == which.bound:
        return draft.clamp(x, which.bound, inf)
    if same[0] and uniform(high) == which.bound:
        return draft.clamp(x, -inf, which.bound)
    scaled = draft.made(draft.read(low), "mul") if same[1] and which.bound == 0 else None
    if scaled is None or x not in scaled.inputs:
        raise ValueError("it chooses between tensors in a way that is no relu, leaky_relu, PReLU or clip")
    slope = scaled.inputs[1 - scaled.inputs.index(x)]
    held = draft.made(slope, "constant")
    if held and held.kernel in draft.constants:
        alpha = uniform(draft.constants[held.kernel].value)
        if alpha is not None:
            return draft.add_node(Node("leaky_relu", (x,), "", alpha=alpha))
    return draft.add_node(Node("prelu", (x, slope), ""))


RULES: Mapping[str, Rule] = MappingProxyType({
    "add": _arithmetic("add"), "add_any": _arithmetic("add"), "sub": _arithmetic("sub"),
    "mul": lambda draft, operands, attributes: multiply(draft, *operands),
    "div": lambda draft, operands, attributes: divide(draft, *operands),
    "max": lambda draft, operands, attributes: _bounded(draft, "maximum", *operands),
    "min": lambda draft, operands, attributes: _bounded(draft, "minimum", *operands),
    "clamp": _clamp, "integer_pow": _power, "pow": _power, "select_n": _select,
    **dict.fromkeys(("gt", "ge"), lambda draft, operands, attributes: _compare(draft, operands, True)),
    **dict.fromkeys(("lt", "le"), lambda draft, operands, attributes: _compare(draft, operands, False)),
    **{op: _function(op) for op in ("logistic", "tanh", "exp", "sqrt", "rsqrt", "neg", "abs", "square")},
})  # fmt: skip
