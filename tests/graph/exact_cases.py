"""Random programs of one integer operation, wilder than a calibration makes them: scales over four decades, zero
points at both ends, odd sizes, saturating sums."""

from __future__ import annotations

from typing import Any

import numpy as np

from research.graph.exact import compile_exact
from research.graph.ir import BINARY, WEIGHTED, Graph, Node, Shape, Tensor
from research.graph.program import LIMITS, Affine, IntegerWeights, Program
from research.graph.runtime import run_raw
from research.graph.shapes import output_shape
from research.graph.write import write

INT8_ONLY = ("hard_swish", "depth_to_space", "prelu")
FUSED = ("none", "relu", "relu6", "relu_n1_to_1")
MOVES = ("reshape", "transpose", "pad", "slice", "concat", "resize", "depth_to_space")
CURVES = ("logistic", "tanh", "exp", "sqrt", "rsqrt", "hard_swish")
LINES = ("leaky_relu", "clamp", "abs", "neg", "quantize")
NO_BIAS = np.zeros(0, np.int32)
Draw = np.random.Generator


def single(value: float) -> float:
    return float(np.float32(value))


def scale(rng: Draw, low: float = -7, high: float = 1.5) -> float:
    """A float32 number, uniform in its logarithm."""
    return single(np.exp(rng.uniform(low, high)))


def form(rng: Draw, dtype: str) -> Affine:
    if dtype == "int16":
        return Affine(single(scale(rng) / (256 if rng.random() < 0.8 else 1)), 0, "int16")
    zero = int(rng.choice([-128, 127, 0, rng.integers(-128, 128)]))
    return Affine(scale(rng), zero if dtype == "int8" else zero + 128, dtype)


def integers(rng: Draw, shape: Shape, dtype: str) -> np.ndarray:
    """Uniform over the whole type, or around one value."""
    low, high = LIMITS[dtype]
    if rng.random() < 0.3:
        spread = rng.normal((low + high) / 2 + rng.normal() * 30, (high - low) / 20, shape)
        return np.clip(spread, low, high).astype(dtype)
    return rng.integers(low, high + 1, shape).astype(dtype)


def program(
    node: Node, shapes: dict[str, Shape], scales: dict[str, Affine], recorded: Shape = (),
    values: IntegerWeights | None = None, constants: dict[str, np.ndarray] | None = None,
) -> Program:  # fmt: skip
    """One node `o` and its constants. values: of a layer."""
    made = output_shape(node, tuple(shapes[i] for i in node.inputs), recorded)
    tensors = tuple(Tensor(n, s) for n, s in (shapes | {node.output: made}).items())
    held = {n: IntegerWeights(v, np.ones(1, np.float32), NO_BIAS) for n, v in (constants or {}).items()}
    nodes = tuple(Node("constant", (), n, kernel=f"c/{n}", kernel_shape=shapes[n]) for n in held)
    inputs = tuple(n for n in shapes if n not in held)
    graph = Graph((*nodes, node), tensors, inputs, (node.output,))
    return Program(graph, {}, scales, held | ({node.output: values} if values else {}))


def some(rng: Draw, low: int, high: int, count: int) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.integers(low, high, count))


def layer(rng: Draw, op: str, dtype: str) -> Program:
    channels, outs = int(rng.choice([*range(1, 9), 150], p=[0.12] * 8 + [0.04])), int(rng.integers(1, 9))
    size, window, strides = some(rng, 1, 12, 2), some(rng, 1, 5, 2), some(rng, 1, 4, 2)
    dilation = some(rng, 1, 3, 2) if op != "transpose_conv" and rng.random() < 0.5 else (1, 1)
    padding = "SAME" if rng.random() < 0.6 else "VALID"
    if padding == "VALID":
        size = tuple(max(s, (w - 1) * d + 1) for s, w, d in zip(size, window, dilation, strict=True))
    shape, more, recorded = (1, *size, channels), dict[str, Any](), ()
    if op == "dense":
        shape, kernel = (1, *some(rng, 1, 5, int(rng.integers(0, 2))), channels), (channels, outs)
    else:
        more = {"strides": strides, "padding": padding, "dilation": dilation}
    if op == "conv":
        groups = int(rng.choice([1, 1, 2, 3, channels]))
        groups = groups if channels % groups == 0 else 1
        kernel = (*window, channels // groups, outs * groups)
    elif op == "depthwise":
        kernel = (*window, 1, channels * int(rng.integers(1, 4)))
        more["strides"] = (1, 1) if dilation != (1, 1) else strides
    elif op == "transpose_conv":
        kernel, grown = (*window, channels, outs), zip(size, strides, window, strict=True)
        recorded = (1, *(s * t if padding == "SAME" else (s - 1) * t + w for s, t, w in grown), outs)
    source, out = form(rng, dtype), form(rng, dtype)
    steps = 60 if dtype == "int8" else 15000
    typical = np.sqrt(np.prod(kernel[:-1])) * 60 * steps
    spread = np.exp(rng.normal(size=1 if rng.random() < 0.3 else kernel[-1]) * rng.choice([0, 1, 4]))
    weights = rng.integers(-127, 128, kernel).astype(np.int8)
    weights[...] = 127 if rng.random() < 0.1 else weights
    wide = dtype == "int16" and (op == "depthwise" or rng.random() < 0.6)
    bias = rng.integers(-2 * typical, 2 * typical + 1, kernel[-1])
    bias = bias * 1000 if wide and op != "dense" and rng.random() < 0.2 else np.clip(bias, -(2**30), 2**30)
    values = IntegerWeights(
        weights, (out.scale * steps / typical / source.scale * spread).astype(np.float32),
        bias.astype(np.int64 if wide else np.int32),
    )  # fmt: skip
    node = Node(
        op, ("x",), "o", kernel="w", kernel_shape=kernel, bias="b", activation=str(rng.choice(FUSED)), **more
    )
    return program(node, {"x": shape}, {"x": source, "o": out}, recorded, values)


def binary(rng: Draw, op: str, dtype: str) -> Program:
    shape = (1, *some(rng, 1, 6, int(rng.integers(1, 4))))
    other = shape if rng.random() < 0.4 else tuple(s if rng.random() < 0.5 else 1 for s in shape)
    other = shape[-1:] if rng.random() < 0.3 else other
    scales = {n: form(rng, dtype) for n in "xyo"}
    constants = {} if len(other) == len(shape) else {"y": integers(rng, other, dtype)}
    if op == "prelu":
        other = (1,) * (len(shape) - 1) + shape[-1:]
        constants = {"y": integers(rng, other, dtype)}
    elif op in ("add", "sub"):  # LiteRT ends the process where an output is so much finer than an input
        least = 2 * max(scales["x"].scale, scales["y"].scale) / 2 ** (14 if dtype == "int16" else 19)
        scales["o"] = scales["o"]._replace(scale=single(max(scales["o"].scale, least)))
    elif op in ("maximum", "minimum"):
        scales = dict.fromkeys("xyo", scales["x"])
    fused = str(rng.choice(FUSED)) if op in ("add", "sub", "mul", "div") else "none"
    node, shapes = Node(op, ("x", "y"), "o", activation=fused), {"x": shape, "y": other}
    return program(node, shapes, scales, constants={n: apart(op, v, scales[n]) for n, v in constants.items()})


def apart(op: str, values: np.ndarray, of: Affine) -> np.ndarray:
    """Divisors without zeros, as LiteRT demands."""
    return (
        np.where(values == of.zero_point, of.zero_point ^ 1, values).astype(values.dtype)
        if op == "div"
        else values
    )


def matmul(rng: Draw, dtype: str) -> Program:
    rows, inner, columns = some(rng, 1, 9, 3)
    inner = 300 if rng.random() < 0.2 else inner
    heads = some(rng, 1, 4, int(rng.integers(0, 2)))
    scales, steps = {n: form(rng, dtype) for n in "xyo"}, 60 if dtype == "int8" else 15000
    out = scales["x"].scale * scales["y"].scale * np.sqrt(inner) * steps * np.exp(rng.normal())
    scales["o"] = scales["o"]._replace(scale=single(out))
    return program(
        Node("matmul", ("x", "y"), "o"),
        {"x": (1, *heads, rows, inner), "y": (1, *heads, inner, columns)},
        scales,
    )


def pool(rng: Draw, op: str, dtype: str) -> Program:
    window, padding, source = some(rng, 1, 6, 2), "SAME" if rng.random() < 0.6 else "VALID", form(rng, dtype)
    shape = (1, *(max(s, w) for s, w in zip(some(rng, 1, 9, 2), window, strict=True)), 3)
    node = Node(
        op,
        ("x",),
        "o",
        window=window,
        strides=some(rng, 1, 4, 2),
        padding=padding,
        activation=str(rng.choice(FUSED)),
    )
    return program(node, {"x": shape}, {"x": source, "o": source})


def moved(rng: Draw, op: str, dtype: str) -> Program:
    shape, source = (1, *some(rng, 1, 9, 3)), form(rng, dtype)
    shapes, more, recorded = {"x": shape}, dict[str, Any](), ()
    if op == "reshape":
        recorded = (1, int(np.prod(shape)))
    elif op == "transpose":
        more = {"axes": (0, *(int(v) for v in rng.permutation([1, 2, 3])))}
    elif op == "pad":
        more = {"spans": ((0, 0), *(some(rng, 0, 3, 2) for _ in range(3)))}
        more["alpha"] = float(rng.choice([0.0, 1.0, -3.3]))
    elif op == "slice":
        steps = [int(v) for v in rng.choice([1, 2, -1], 3)]
        counts = [int(rng.integers(1, (s - 1) // abs(t) + 2)) for s, t in zip(shape[1:], steps, strict=True)]
        reach = [(n - 1) * t for n, t in zip(counts, steps, strict=True)]
        begins = [
            max(0, -r) + int(rng.integers(0, s - abs(r))) for s, r in zip(shape[1:], reach, strict=True)
        ]
        more, recorded = {"spans": ((0, 1), *zip(begins, steps, strict=True))}, (1, *counts)
    elif op == "concat":
        axis = int(rng.integers(1, 4))
        shapes["y"], more = tuple(2 if a == axis else s for a, s in enumerate(shape)), {"axis": axis}
    elif op == "resize":
        where = str(rng.choice(["", "/half_pixel", "/align_corners"]))
        more = {"mode": str(rng.choice(["bilinear", "nearest"])) + where}
        recorded = (1, *some(rng, 1, 20, 2), shape[3])
    else:
        block = int(rng.integers(1, 4))
        shapes, more = (
            {"x": (*shape[:3], block * block * int(rng.integers(1, 4)))},
            {"window": (block, block)},
        )
    scales = dict.fromkeys((*shapes, "o"), source)
    return program(Node(op, tuple(shapes), "o", **more), shapes, scales, recorded)


def unary(rng: Draw, op: str, dtype: str, shape: Shape = ()) -> Program:
    """shape: of the input, random where it is not given."""
    shape, recorded = shape or (1, *some(rng, 1, 9, 3)), ()
    source, out, more, narrow = form(rng, dtype), form(rng, dtype), dict[str, Any](), dtype == "int8"
    if op == "mean":
        axes = tuple(sorted(int(a) for a in rng.choice([1, 2, 3], int(rng.integers(1, 4)), replace=False)))
        more, kept = {"axes": axes}, [a for a in range(4) if a not in axes]
        recorded = tuple(shape[a] for a in kept)
        if rng.random() < 0.5:
            recorded = tuple(shape[a] if a in kept else 1 for a in range(4))
    elif op == "clamp":
        choices = [(0.0, np.inf), (0.0, 6.0), (-1.0, 1.0)][: 3 if narrow else 2]
        more = {"bounds": choices[int(rng.integers(len(choices)))]}
    elif op == "leaky_relu":
        more = {"alpha": single(rng.uniform(-0.5, 1.5))}
    elif op == "softmax":
        more, shape = {"alpha": single(rng.uniform(0.1, 2))}, (1, 3, int(rng.choice([2, 5, 70, 500])))
        out = Affine(2**-8, -128) if narrow else Affine(2**-15, 0, "int16")
    elif op in ("logistic", "tanh"):
        out = out._replace(scale=2**-8 if op == "logistic" else scale(rng, -7, -3))
        out = out if narrow else Affine(2**-15, 0, "int16")
        if not narrow:
            power = 2.0 ** int(rng.integers(-14, -9))
            source = source._replace(scale=power if rng.random() < 0.3 else scale(rng, -12, -5))
    elif op == "exp" and not narrow:
        source, out = source._replace(scale=scale(rng, -14, -8)), out._replace(scale=scale(rng, -12, -2))
    elif op in ("sqrt", "rsqrt"):
        source = source._replace(zero_point=-128 if narrow else 0)
    elif op == "hard_swish":
        out = out._replace(scale=max(out.scale, single(source.scale / 127)))
    elif op == "quantize":
        out = form(
            rng, str(rng.choice(["int8", "int16"] if dtype == "int16" else ["int8", "int16", "uint8"]))
        )
        if {dtype, out.dtype} == {"int8", "uint8"} and rng.random() < 0.5:  # a shift by 128 has its own path
            out = Affine(source.scale, source.zero_point + (128 if narrow else -128), out.dtype)
    node = Node(op, ("x",), "o", **more)
    return program(node, {"x": shape}, {"x": source, "o": out}, recorded)


def random_program(op: str, dtype: str, seed: int) -> Program:
    rng = np.random.default_rng([seed, dtype == "int16"])
    if op in WEIGHTED:
        return layer(rng, op, dtype)
    if op in BINARY:
        return binary(rng, op, dtype)
    if op == "matmul":
        return matmul(rng, dtype)
    if op in ("avg_pool", "max_pool"):
        return pool(rng, op, dtype)
    return moved(rng, op, dtype) if op in MOVES else unary(rng, op, dtype)


def random_inputs(made: Program, seed: int, count: int = 3) -> list[np.ndarray]:
    """[count, ...] of every input; nothing that LiteRT stops at (a root of less, a quotient by nothing)."""
    rng, op = np.random.default_rng(seed), made.graph.nodes[-1].op
    drawn = []
    for name in made.graph.inputs:
        value = integers(rng, (count, *made.graph.shape(name)[1:]), made.dtype(name))
        if op in ("sqrt", "rsqrt"):
            value = np.maximum(value, made.scales[name].zero_point).astype(value.dtype)
        drawn.append(apart(op, value, made.scales[name]) if name == "y" else value)
    return drawn


def differing(made: Program, inputs: list[np.ndarray]) -> int:
    """Integers in which the exact outputs differ from LiteRT's reference kernels; shapes and types are equal."""
    wanted, got = run_raw(write(made), inputs), compile_exact(made)(*inputs)
    assert [(g.shape, g.dtype) for g in got] == [(w.shape, w.dtype) for w in wanted]
    return sum(int((np.asarray(g) != w).sum()) for g, w in zip(got, wanted, strict=True))
