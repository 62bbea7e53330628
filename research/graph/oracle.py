"""Every tensor of a program in plain numpy: what LiteRT's reference kernels make of it, written to be read.

The judge of `exact`, `write` and `read`, and independent of them: they share nothing but the graph. Integer
operators are in `oracle_integer`, on the arithmetic of `oracle_fixed` and the windows of `oracle_window`; here
are the operators that only move values, those in float32 (in double, rounded once: LiteRT's own rounding at
every step is not imitated), and the walk over the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from research.graph.ir import WEIGHTED, Graph, Node, Shape
from research.graph.oracle_fixed import CLAMPS, F, away, factor, scaled, store, to_int32
from research.graph.oracle_integer import CENTRED, RAW, Kernel, Site, integer
from research.graph.oracle_window import convolve, resize, windows
from research.graph.program import Affine, Program

INT8_ONLY = ("depth_to_space", "hard_swish")


def _concat(node: Node, shape: Shape, *xs: np.ndarray) -> np.ndarray:
    batch = max(len(x) for x in xs)  # that of a constant is 1
    return np.concatenate([np.repeat(x, batch // len(x), 0) if node.axis else x for x in xs], node.axis)


def _slice(node: Node, shape: Shape, x: np.ndarray) -> np.ndarray:
    for axis, ((begin, stride), count) in enumerate(zip(node.spans, shape, strict=True)):
        whole = (axis, begin, stride, count) == (0, 0, 1, 1)  # the batch
        x = np.take(x, begin + stride * np.arange(len(x) if whole else count), axis)
    return x


def _softmax(node: Node, shape: Shape, x: np.ndarray) -> np.ndarray:
    powers = np.exp((x - x.max(-1, keepdims=True)) * node.alpha)
    return np.asarray(powers / powers.sum(-1, keepdims=True))


# Values go from one place to another as they are, whatever their format.
MOVES: Mapping[str, Kernel] = MappingProxyType({
    "concat": _concat, "slice": _slice, "nearest": resize, "transpose": lambda node, shape, x: x.transpose(node.axes),
    "reshape": lambda node, shape, x: x.reshape((-1, *shape[1:]) if shape[:1] == (1,) else shape),
    "depth_to_space": lambda node, shape, x: (
        x.reshape(*x.shape[:3], *node.window, -1).swapaxes(2, 3).reshape(-1, *shape[1:])),
})  # fmt: skip
PLAIN: Mapping[str, Kernel] = MappingProxyType({
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "matmul": np.matmul, "tanh": np.tanh,
    "maximum": np.maximum, "minimum": np.minimum, "prelu": lambda x, slope: np.where(x >= 0, x, x * slope),
    "exp": np.exp, "sqrt": np.sqrt, "neg": np.negative, "abs": np.abs, "square": np.square,
    "rsqrt": lambda x: 1 / np.sqrt(x), "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
})  # fmt: skip
FLOAT: Mapping[str, Kernel] = MappingProxyType({
    "mean": lambda node, shape, x: x.mean(node.axes, keepdims=len(shape) == x.ndim), "resize": resize,
    "avg_pool": lambda node, shape, x: windows(node, x).sum(0) / windows(node, np.ones_like(x)).sum(0),
    "max_pool": lambda node, shape, x: windows(node, x, -np.inf).max(0), "softmax": _softmax,
    "clamp": lambda node, shape, x: np.clip(x, *(node.bounds or CLAMPS["none"])),
    "leaky_relu": lambda node, shape, x: np.where(x >= 0, x, x * node.alpha),
    **dict.fromkeys(WEIGHTED, lambda node, shape, x, *kernel: sum(kernel[1:], convolve(node, shape, x, kernel[0]))),
})  # fmt: skip


def quantize(x: np.ndarray, source: Affine | None, out: Affine | None) -> np.ndarray:
    """QUANTIZE and DEQUANTIZE: the same real values in another format; None is float32."""
    if source is None:
        return x if out is None else store(to_int32(away(x / F(out.scale))), out)
    integers = x.astype(np.int64) - source.zero_point
    real = (integers * source.scale).astype(F)
    return real if out is None else store(scaled(integers, factor(source.scale / out.scale)), out)


def _numbers(program: Program, node: Node) -> Sequence[np.ndarray]:
    """The integers of a layer or constant; of a float one, kernel and bias. ValueError where they are missing."""
    arrays = {c.name: c.value for c in program.graph.constants} | dict(program.params)
    paths, whole = [path for path in (node.kernel, node.bias) if path], node.output in program.scales
    if not (node.output in program.integers if whole else all(path in arrays for path in paths)):
        raise ValueError(f"node {node.output!r}: the program lacks its {'integers' if whole else paths}")
    return program.integers[node.output] if whole else [np.asarray(arrays[path], F) for path in paths]


def _check_formats(program: Program, node: Node) -> None:
    """Raises ValueError, naming node and dtypes, for formats that LiteRT has no kernel between."""
    ours, theirs, op = program.dtype(node.output), [program.dtype(i) for i in node.inputs], node.op
    known = op in (*CENTRED, *RAW, *MOVES, "pad") and (ours != "int16" or op not in INT8_ONLY)
    same = {*(theirs[:1] if op in ("prelu", "matmul") else theirs)} == {ours}
    fits = same and (ours == "float32" or (ours != "uint8" and known))
    if not ((theirs[0], ours) != ("int16", "uint8") if op == "quantize" else fits):
        raise ValueError(f"node {node.output!r}: LiteRT has no {op} from {', '.join(theirs)} to {ours}")


def _apply(program: Program, node: Node, xs: Sequence[np.ndarray]) -> np.ndarray:
    """One operator on its inputs. ValueError for formats LiteRT has no kernel for, and missing weights."""
    shape, out = program.graph.shape(node.output), program.scales.get(node.output)
    if node.op == "constant":
        return _numbers(program, node)[0].reshape(node.kernel_shape).astype(program.dtype(node.output))
    _check_formats(program, node)
    if node.op == "quantize":
        return quantize(xs[0], program.scales.get(node.inputs[0]), out)
    if node.op == "pad":
        fill = F(node.alpha) if out is None else out.quantise(np.array(node.alpha))
        return np.pad(xs[0], node.spans, constant_values=fill)
    name = "nearest" if node.mode.startswith("nearest") else node.op
    if name in MOVES:
        return MOVES[name](node, shape, *xs)
    weights = _numbers(program, node) if node.op in WEIGHTED else ()
    if out is not None:
        sources = tuple(program.scales[i] for i in node.inputs)
        return integer(Site(node, sources, tuple(s.scale for s in sources), out, shape), xs, weights)
    wide = [x.astype(np.float64) for x in (*xs, *weights)]
    with np.errstate(all="ignore"):  # infinities and NaN are LiteRT's answers too
        y = PLAIN[node.op](*wide) if node.op in PLAIN else FLOAT[node.op](node, shape, *wide)
        return np.clip(y, *CLAMPS[node.activation]).astype(F)


def _mixes(graph: Graph, node: Node, inputs: set[str]) -> bool:
    """Whether a node does more than the same to each image of these inputs."""
    shapes = [graph.shape(n) for n in (*inputs, node.output)]
    moved = node.axes[:1] != (0,) if node.op == "transpose" else node.op == "mean" and 0 in node.axes
    return moved or any(s[:1] != (1,) for s in shapes) or len({len(s) for s in shapes[:-1]}) > 1


def values(program: Program, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Every tensor of the program by name, each in its own dtype, [N, ...]; constants as they are.

    inputs: one array for each input of the graph, [N, ...] in the input's dtype; N above 1 only where every
    tensor but constants starts with an axis of 1 image, and such tensors meet with equal ranks.
    ValueError for inputs that do not fit, missing weights, and what LiteRT's reference kernels refuse.
    """
    graph = program.graph
    if len(inputs) != len(graph.inputs):
        raise ValueError(f"the program reads {len(graph.inputs)} input(s), got {len(inputs)}")
    state = dict(zip(graph.inputs, inputs, strict=True))
    count = len(inputs[0]) if inputs and graph.shape(graph.inputs[0])[:1] == (1,) else 1
    for name, value in state.items():
        shape, dtype = graph.shape(name), program.dtype(name)
        shape = (count, *shape[1:]) if shape[:1] == (1,) else shape
        if value.shape != shape or value.dtype != dtype:
            raise ValueError(f"input {name!r} is {value.dtype} {value.shape}; wanted {dtype} {shape}")
    constants = {n.output for n in graph.nodes if n.op == "constant"}
    for node in graph.nodes:
        if count > 1 and node.op != "constant" and _mixes(graph, node, set(node.inputs) - constants):
            raise ValueError(f"node {node.output!r} ({node.op}) mixes images; run one at a time")
        state[node.output] = _apply(program, node, [state[i] for i in node.inputs])
    return state


def run(program: Program, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The outputs of the program, each [N, ...] in its own dtype. Arguments and errors as `values`."""
    state = values(program, inputs)
    return tuple(state[name] for name in program.graph.outputs)
