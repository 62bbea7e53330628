"""Programs of one operation for hypothesis: every integer kernel LiteRT has, over formats, shapes and extremes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from research.graph.ir import Graph, Node, Tensor
from research.graph.program import LIMITS, Affine, DType, IntegerWeights, Program
from research.graph.shapes import output_shape

Draw = Callable[[Any], Any]
Shape = tuple[int, ...]
DTYPES: tuple[DType, ...] = ("int8", "int16")


class Case(NamedTuple):
    program: Program
    inputs: list[np.ndarray]


def single(
    fields: dict[str, Any],
    shapes: list[Shape],
    formats: list[Affine | None],
    out: Affine | None,
    recorded: Shape = (),
    weights: IntegerWeights | None = None,
    constants: Mapping[int, np.ndarray] | None = None,
) -> Program:
    """A program of one node y of the inputs x0, x1, ...; `constants` are inputs that are integers of the file."""
    constants, names = constants or {}, [f"x{i}" for i in range(len(shapes))]
    node = Node(inputs=tuple(names), output="y", **fields)
    found = {} if weights is None else {"y": weights}
    nodes = []
    for i, value in constants.items():
        nodes.append(Node("constant", (), names[i], kernel=f"k{i}", kernel_shape=value.shape))
        found[names[i]] = IntegerWeights(value, np.ones(1, np.float32), np.zeros(0, np.int32))
    shape = output_shape(node, tuple(shapes), recorded)
    tensors = tuple(Tensor(n, s) for n, s in zip([*names, "y"], [*shapes, shape], strict=True))
    inputs = tuple(n for i, n in enumerate(names) if i not in constants)
    scales = {n: a for n, a in zip([*names, "y"], [*formats, out], strict=True) if a is not None}
    return Program(Graph((*nodes, node), tensors, inputs, ("y",)), {}, scales, found)


def number(draw: Draw, low: float, high: float) -> float:
    """A float32 number between 10 ** low and 10 ** high."""
    return float(np.float32(10 ** draw(st.floats(low, high))))


def form(draw: Draw, dtype: DType, low: float = -3, high: float = 0.5) -> Affine:
    ends = LIMITS[dtype]
    zero = 0 if dtype == "int16" else draw(st.integers(*ends) | st.sampled_from(ends))
    return Affine(number(draw, low, high), zero, dtype)


def about(draw: Draw, dtype: DType, natural: float) -> Affine:
    """A format whose scale is within a factor of 30 of `natural`, so that some outputs saturate and some vanish."""
    return form(draw, dtype, np.log10(natural) - 1.5, np.log10(natural) + 1.5)


def ints(draw: Draw, shape: Shape, dtype: DType, images: int = 2) -> np.ndarray:
    """Random integers [images, ...]; sometimes only the ends of the range and zero."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    low, high = LIMITS[dtype]
    shape = (images, *shape[1:])
    extreme = draw(st.booleans()) and draw(st.booleans())
    return (rng.choice([low, high, 0], shape) if extreme else rng.integers(low, high + 1, shape)).astype(
        dtype
    )


def every(dtype: DType) -> np.ndarray:
    """All 256 or 65536 integers, [1, all]."""
    low, high = LIMITS[dtype]
    return np.arange(low, high + 1).astype(dtype)[None]


sizes, activations = st.integers(1, 7), st.sampled_from(["none", "relu", "relu6", "relu_n1_to_1"])
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
paddings = st.sampled_from(["SAME", "VALID"])


def image(draw: Draw, least: tuple[int, int] = (1, 1)) -> Shape:
    return 1, max(draw(sizes), least[0]), max(draw(sizes), least[1]), draw(st.integers(1, 5))


def layer(draw: Draw, dtype: DType, op: str) -> Case:
    kernel, strides, dilation, padding = draw(pairs), draw(pairs), draw(pairs), draw(paddings)
    strides = (1, 1) if dilation != (1, 1) and draw(st.booleans()) else strides
    _, h, w, c = image(draw, tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)))
    outs, fields, recorded = draw(st.integers(1, 6)), {"strides": strides, "padding": padding}, ()
    if op == "conv":
        groups = draw(st.sampled_from([1, 1, 2, 3]))
        outs, layout, c = outs * groups, (*kernel, c, outs * groups), c * groups
    elif op == "depthwise":
        outs = c * draw(st.integers(1, 3))
        layout = (*kernel, 1, outs)
    elif op == "transpose_conv":
        layout = (*kernel, c, outs)
        sides = [
            n * s if padding == "SAME" else (n - 1) * s + max(k, s)
            for n, s, k in zip((h, w), strides, kernel, strict=True)
        ]
        recorded = (1, *sides, outs)
    else:
        layout = (c, outs)
    shape: Shape = (1, h, w, c)
    if op == "dense":
        shape, fields = draw(st.sampled_from([(1, c), (1, h, c), shape])), {}
    if op in ("conv", "depthwise"):
        fields["dilation"] = dilation
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = (10 ** rng.uniform(-3, -1, draw(st.sampled_from([1, outs])))).astype(np.float32)
    narrow = dtype == "int8" or (op != "depthwise" and draw(st.booleans()))
    size = 10 ** draw(st.floats(0, 5 if narrow else 7))
    bias = rng.integers(-size - 1, size + 1, outs).astype(np.int32 if narrow else np.int64)
    weights = IntegerWeights(rng.integers(-127, 128, layout).astype(np.int8), scale, bias)
    source = form(draw, dtype)
    natural = source.scale * float(scale.mean()) * 50 * np.sqrt(np.prod(layout) / outs)
    fields |= {"op": op, "kernel": "k", "kernel_shape": layout, "bias": "b", "activation": draw(activations)}
    program = single(fields, [shape], [source], about(draw, dtype, natural), recorded, weights)
    return Case(program, [ints(draw, shape, dtype)])


def binary(draw: Draw, dtype: DType, op: str) -> Case:
    shape = _, h, w, c = image(draw)
    other = draw(st.sampled_from([shape, (1, 1, 1, c), (c,), (1, h, 1, c), (1,), (1, 1, w, 1)]))
    first, second = form(draw, dtype), form(draw, dtype)
    natural = first.scale * second.scale * 100 if op == "mul" else 2 * max(first.scale, second.scale)
    out = about(draw, dtype, natural)
    if op in ("maximum", "minimum"):
        second = out = first
    fields = {"op": op} | ({"activation": draw(activations)} if op in ("add", "sub", "mul") else {})
    x, constant = ints(draw, shape, dtype), draw(st.booleans()) or len(other) != 4
    if not constant:
        return Case(single(fields, [shape, other], [first, second], out), [x, ints(draw, other, dtype)])
    value = ints(draw, other, dtype, other[0])
    if draw(st.booleans()):
        return Case(single(fields, [shape, other], [first, second], out, constants={1: value}), [x])
    return Case(single(fields, [other, shape], [second, first], out, constants={0: value}), [x])


def prelu(draw: Draw, dtype: DType, op: str) -> Case:
    shape, source, slope = image(draw), form(draw, dtype), form(draw, "int8")
    value = ints(draw, (1, 1, shape[3]), "int8", 1)
    out = about(draw, dtype, source.scale)
    program = single({"op": op}, [shape, value.shape], [source, slope], out, constants={1: value})
    return Case(program, [ints(draw, shape, dtype)])


def matmul(draw: Draw, dtype: DType, op: str) -> Case:
    m, k, n, heads = draw(sizes), draw(sizes), draw(sizes), draw(st.sampled_from([(), (2,), (2, 3)]))
    left, right = (1, *heads, m, k), (1, *heads, k, n)
    first, second = form(draw, dtype), form(draw, dtype)
    out = about(draw, dtype, first.scale * second.scale * 70 * np.sqrt(k))
    x = ints(draw, left, dtype)
    if draw(st.booleans()):
        value = ints(draw, (k, n), dtype, k)
        return Case(single({"op": op}, [left, (k, n)], [first, second], out, constants={1: value}), [x])
    return Case(single({"op": op}, [left, right], [first, second], out), [x, ints(draw, right, dtype)])


def mean(draw: Draw, dtype: DType, op: str) -> Case:
    axes = draw(st.sampled_from([(1, 2), (1,), (2,), (3,), (1, 2, 3), (2, 3), (1, 3)]))
    _, h, w, c = image(draw)
    shape, source = (1, h * draw(st.sampled_from([1, 9])), w, c), form(draw, dtype)
    recorded = (1,) * (4 if draw(st.booleans()) else 4 - len(axes))
    program = single({"op": op, "axes": axes}, [shape], [source], about(draw, dtype, source.scale), recorded)
    return Case(program, [ints(draw, shape, dtype)])


def pool(draw: Draw, dtype: DType, op: str) -> Case:
    window, source = draw(pairs), form(draw, dtype)
    shape = image(draw, window)
    fields = {"op": op, "window": window, "strides": draw(pairs), "padding": draw(paddings)}
    program = single(fields | {"activation": draw(activations)}, [shape], [source], source)
    return Case(program, [ints(draw, shape, dtype)])


def unary(draw: Draw, dtype: DType, op: str) -> Case:
    """Of all inputs there are."""
    x, source, fields = every(dtype), form(draw, dtype), {"op": op}
    out = about(draw, dtype, source.scale)
    if op == "clamp":
        fields["bounds"] = draw(
            st.sampled_from([(0.0, np.inf), (0.0, 6.0), (-1.0, 1.0)][: 3 - (dtype == "int16")])
        )
    elif op == "leaky_relu":
        fields["alpha"] = draw(st.floats(-2, 4, width=32))
    elif op == "logistic" or (op == "tanh" and dtype == "int16"):
        out = Affine(2.0**-15, 0, dtype) if dtype == "int16" else out._replace(scale=2.0**-8)
        near = st.sampled_from([2.0**-13, 2.0**-12, 2.0**-12 * 1.0003, 2.0**-11 * 0.9996, 2.0**-10])
        wide = st.floats(-5, 0.5).map(lambda e: 10**e)
        source = source._replace(scale=float(np.float32(draw(wide | near if dtype == "int16" else wide))))
    elif op == "tanh":
        out = form(draw, dtype, -2.5, -1.5)
    elif op == "exp":
        source = source._replace(scale=source.scale / (20 if dtype == "int8" else 3000))
        out = about(draw, dtype, np.exp(source.scale * LIMITS[dtype][1]) / LIMITS[dtype][1])
    elif op in ("sqrt", "rsqrt"):
        x = np.maximum(x, source.zero_point).astype(dtype)
        out = about(
            draw, dtype, np.sqrt(source.scale * 99) / 99 if op == "sqrt" else 0.01 / np.sqrt(source.scale)
        )
    elif op == "hard_swish":
        assume(source.scale / 128 / out.scale < 1)
    return Case(single(fields, [x.shape], [source], out), [x])


def softmax(draw: Draw, dtype: DType, op: str) -> Case:
    shape = (1, *draw(st.sampled_from([(), (3,)])), draw(st.sampled_from([1, 2, 5, 17, 300, 511])))
    small = dtype == "int8"
    source, out = form(draw, dtype, *((-4, 2) if small else (-6, 0))), Affine(2.0**-8, -128)
    fields = {"op": op, "alpha": draw(st.sampled_from([1.0, 0.5]) | st.floats(0.125, 10, width=32))}
    program = single(fields, [shape], [source], out if small else Affine(2.0**-15, 0, "int16"))
    return Case(program, [ints(draw, shape, dtype)])


def resize(draw: Draw, dtype: DType, op: str) -> Case:
    where = draw(st.sampled_from(["", "/half_pixel", "/align_corners"]))
    shape, source = image(draw), form(draw, dtype)
    recorded = (1, draw(st.integers(1, 40)), draw(st.integers(1, 20)), shape[3])
    fields = {"op": op, "mode": draw(st.sampled_from(["bilinear", "nearest"])) + where}
    return Case(single(fields, [shape], [source], source, recorded), [ints(draw, shape, dtype)])


def move(draw: Draw, dtype: DType, op: str) -> Case:
    shape = _, h, w, c = image(draw)
    source, recorded, fields = form(draw, dtype), (), {"op": op}
    if op == "reshape":
        recorded = (1, h * c, w)
    elif op == "transpose":
        fields["axes"] = (0, *draw(st.permutations([1, 2, 3])))
    elif op == "pad":
        spans = draw(st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 3))
        value = draw(st.sampled_from([0.0, 1.5, -40.0]) | st.floats(-1, 1, width=32)) * source.scale
        fields |= {"spans": ((0, 0), *spans), "alpha": value}
    elif op == "slice":
        spans, counts = [(0, 1)], [1]
        for size in shape[1:]:
            begin, step = draw(st.integers(0, size - 1)), draw(st.sampled_from([1, 2, -1, -2]))
            most = (begin // -step if step < 0 else (size - 1 - begin) // step) + 1
            spans.append((begin, step))
            counts.append(draw(st.integers(1, most)))
        fields, recorded = fields | {"spans": tuple(spans)}, tuple(counts)
    elif op == "depth_to_space":
        block = draw(st.integers(1, 3))
        shape, fields["window"] = (1, h, w, c * block * block), (block, block)
    elif op == "concat":
        fields["axis"] = draw(st.integers(1, 3))
        other = tuple(draw(sizes) if a == fields["axis"] else n for a, n in enumerate(shape))
        xs, constant = ints(draw, shape, dtype), draw(st.booleans())
        value = ints(draw, other, dtype, 1 if constant else 2)
        program = single(
            fields, [shape, other], [source] * 2, source, constants={1: value} if constant else {}
        )
        return Case(program, [xs] if constant else [xs, value])
    return Case(single(fields, [shape], [source], source, recorded), [ints(draw, shape, dtype)])


CASES: dict[str, Callable[[Draw, DType, str], Case]] = {
    **dict.fromkeys(("conv", "depthwise", "transpose_conv", "dense"), layer),
    **dict.fromkeys(("add", "sub", "mul", "maximum", "minimum"), binary),
    **dict.fromkeys(("avg_pool", "max_pool"), pool),
    **dict.fromkeys(("reshape", "transpose", "pad", "slice", "concat", "depth_to_space"), move),
    **dict.fromkeys(("clamp", "leaky_relu", "logistic", "tanh", "hard_swish", "exp"), unary),
    **dict.fromkeys(("sqrt", "rsqrt", "neg", "abs"), unary),
    "prelu": prelu, "matmul": matmul, "mean": mean, "softmax": softmax, "resize": resize,
}  # fmt: skip
NO_INT16 = {"hard_swish", "depth_to_space"}
KINDS = [(op, d) for op in CASES for d in DTYPES if d == "int8" or op not in NO_INT16 | {"prelu"}]
