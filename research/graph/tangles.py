"""Random small graphs in which the patterns of `rewrite` meet: what certificates and order are checked on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np

from research.graph.ir import Constant, Graph, Node, Op, Shape, Tensor, check
from research.graph.shapes import output_shape

IMAGE: Shape = (1, 6, 5, 4)  # of the input and of nearly all other tensors
_NONE, _PADS = ((0, 0),) * 4, ((0, 0), (1, 1), (1, 1), (0, 0))
_COPIES: tuple[tuple[Op, dict[str, Any]], ...] = (
    ("pad", {"spans": _NONE}), ("slice", {"spans": ((0, 1),) * 4}), ("transpose", {"axes": (0, 1, 2, 3)}),
    ("resize", {"mode": "bilinear"}), ("avg_pool", {}), ("reshape", {}), ("concat", {"axis": 3}),
)  # fmt: skip


def tangle(seed: int, length: int = 20, integers: bool = False) -> Graph:
    """The graph of this seed: chains, forks, joins, shared operands, dead ends, a site here and there.

    Weights are constants of the graph. `integers`: only what has an int8 form with one scale for all tensors.
    """
    rng = np.random.default_rng(seed)
    nodes, tensors, constants = list[Node](), {"image": Tensor("image", IMAGE)}, dict[str, Constant]()

    def pick(*options: Any) -> Any:
        return options[int(rng.integers(len(options)))]

    def weight(value: np.ndarray) -> str:
        constant = Constant.of(value)
        return constants.setdefault(constant.name, constant).name

    def add(op: Op, *inputs: str, shape: Shape = IMAGE, **attributes: Any) -> str:
        node = Node(op, inputs, f"t{len(tensors)}", **attributes)
        made = output_shape(node, tuple(tensors[i].shape for i in inputs), shape)
        nodes.append(node)
        tensors[node.output] = Tensor(node.output, made)
        return node.output

    def constant(value: Any) -> str:
        return add("constant", kernel=weight(np.asarray(value)), kernel_shape=np.shape(value))

    def row() -> str:  # in one of the forms that traces and files have
        return constant(rng.uniform(0.5, 1.5, pick((4,), (1, 1, 1, 4), (), (1,))))

    def step(x: str, *ops: Op) -> str:
        op = pick(*ops)
        sides = (x,) if op == "neg" else pick((x, row()), (row(), x)) if op in ("add", "mul") else (x, row())
        return add(op, *sides)

    def clamp(x: str, *bounds: tuple[float, float]) -> str:
        return add("clamp", x, bounds=pick(*(bounds or ((0.0, inf), (0.0, 6.0), (-1.0, 1.0)))))

    def layer(x: str) -> str:
        op, bias, size = pick("conv", "depthwise", "dense"), pick(True, False), pick(1, 3)
        shape: Shape = {"conv": (size, size, 4, 4), "depthwise": (size, size, 1, 4), "dense": (4, 4)}[op]
        kernel, path = weight(rng.normal(0, 0.5, shape)), weight(rng.normal(size=4)) if bias else None
        where = "VALID" if op == "dense" else "SAME"
        if not integers and pick(
            True, False, False
        ):  # a kernel that is a tensor, as traces of masked ones have
            held = add("constant", kernel=kernel, kernel_shape=shape)
            return add(op, x, held, kernel_shape=shape, bias=path, padding=where)
        return add(op, x, kernel=kernel, kernel_shape=shape, bias=path, padding=where)

    def padded(x: str) -> str:
        x = add(
            "pad", x, spans=pick(_PADS, _PADS, ((0, 0), (0, 2), (1, 1), (0, 0))), alpha=pick(0.0, 0.0, 1.0)
        )
        if pick(True, False):
            return add(pick("max_pool", "avg_pool"), x, window=(3, 3))
        return add("conv", x, kernel=weight(rng.normal(0, 0.3, (3, 3, 4, 4))), kernel_shape=(3, 3, 4, 4))

    def merged(x: str) -> str:
        kind = pick("reshape", "transpose", "pad", "concat")
        if kind == "reshape":
            return add("reshape", add("reshape", x, shape=(1, 30, 4)))
        if kind == "transpose":
            return add("transpose", add("transpose", x, axes=(0, 2, 3, 1)), axes=(0, 3, 1, 2))
        if kind == "pad":
            outer = add("pad", add("pad", x, spans=_PADS), spans=_PADS, alpha=pick(0.0, 0.0, 1.0))
            return add("slice", outer, spans=((0, 1), (2, 1), (2, 1), (0, 1)))
        inner = add("concat", x, x, axis=1)
        return add("slice", add("concat", inner, pick(x, inner), axis=1), spans=((0, 1),) * 4)

    def hard_swish(x: str) -> str:
        if pick(True, False):  # x clip(x / 6 + 0.5, 0, 1)
            line = add("add", add("mul", x, constant(1 / 6)), constant([0.5]))
            return add("mul", x, clamp(line, (0.0, 1.0)))
        gate, sixth = clamp(add("add", constant(3.0), x), (0.0, 6.0)), constant(1 / 6)
        if pick(True, False):
            return add("div", add("mul", gate, x), constant(6.0))
        return add("mul", *pick((x, add("mul", gate, sixth)), (add("mul", x, sixth), gate)))

    def leaky_relu(x: str) -> str:
        op, slope = pick(("maximum", 0.1), ("minimum", 2.0), ("maximum", 3.0))
        return add(op, x, add("mul", x, constant(slope)))

    def norm(x: str) -> str:
        return add("mul", x, add("mul", row(), add("rsqrt", add("add", row(), constant(1e-3)))))

    def copy(x: str) -> str:
        op, attributes = pick(*_COPIES, ("mul", {}), ("add", {}))
        return add(op, x, *([constant(float(op == "mul"))] if op in ("add", "mul") else []), **attributes)

    both: list[Callable[[str, str], str]] = [
        lambda x, y: add(pick("add", "mul", "sub"), x, y), lambda x, y: add("leaky_relu", x, alpha=0.3),
        lambda x, y: add(pick("max_pool", "avg_pool"), x, window=(3, 3), padding="SAME"),
        lambda x, y: layer(x), lambda x, y: layer(x), lambda x, y: clamp(x), lambda x, y: clamp(x),
        lambda x, y: copy(x), lambda x, y: padded(x), lambda x, y: merged(x),
        lambda x, y: add("max_pool", clamp(x), window=(2, 2), padding="SAME"),
    ]  # fmt: skip
    floats: list[Callable[[str, str], str]] = [
        lambda x, y: add(pick("logistic", "exp", "abs"), x), lambda x, y: hard_swish(x), lambda x, y: leaky_relu(x),
        lambda x, y: norm(x), lambda x, y: clamp(x, (0.0, 0.5)), lambda x, y: add("maximum", x, y),
        lambda x, y: add("add", layer(x), row()),
        *[lambda x, y: step(x, "add", "sub", "mul", "mul", "div", "neg")] * 6,
    ]  # fmt: skip
    ends = ["image"]
    for _ in range(length):
        x, y = ends[-1 if rng.uniform() < 0.85 else 0], pick(*ends[-3:])
        ends.append(pick(*both, *(() if integers else floats))(x, y))
        tensors[ends[-1]] = replace(tensors[ends[-1]], site=rng.uniform() < 0.1)
    read = {i for n in nodes for i in n.inputs}
    outputs = tuple(e for e in ends if e not in read and pick(True, True, False)) or (ends[-1],)
    graph = Graph(tuple(nodes), tuple(tensors.values()), ("image",), outputs, tuple(constants.values()))
    check(graph)
    return graph
