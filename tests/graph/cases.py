"""Programs of one operation each: every operation of the vocabulary, in float, int8 and int16."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from research.graph.interpret import apply_float
from research.graph.ir import WEIGHTED, Graph, Node, Tensor
from research.graph.program import LIMITS, Affine, IntegerWeights, Program
from research.graph.runtime import run_raw
from research.graph.shapes import output_shape
from research.graph.weights import weights_of
from research.graph.write import write


class Case(NamedTuple):
    """A node, the shapes and the (low, high) of its inputs, and the recorded shape where the node leaves it open."""

    node: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...] = ((1, 6, 7, 4),)
    span: tuple[float, float] = (-2.0, 2.5)
    recorded: tuple[int, ...] = ()


def layer(op: str, kernel: tuple[int, ...], **more: Any) -> dict[str, Any]:
    return {"op": op, "kernel": "w/kernel", "kernel_shape": kernel, "bias": "w/bias", **more}


TWO = ((1, 6, 7, 4), (1, 6, 7, 4))
CASES = {
    "conv": Case(layer("conv", (3, 3, 4, 6), strides=(2, 1), padding="SAME", activation="relu")),
    "conv_dilated": Case(layer("conv", (3, 2, 4, 5), dilation=(2, 2), activation="relu6")),
    "conv_grouped": Case(layer("conv", (3, 3, 2, 6), padding="SAME", activation="relu_n1_to_1")),
    "conv_without_bias": Case(layer("conv", (1, 1, 4, 3)) | {"bias": None}),
    "depthwise": Case(layer("depthwise", (3, 3, 1, 4), strides=(2, 2), padding="SAME", activation="relu6")),
    "depthwise_multiplied": Case(layer("depthwise", (3, 3, 1, 8))),
    "depthwise_dilated": Case(layer("depthwise", (3, 3, 1, 4), dilation=(2, 2), padding="SAME")),
    "transpose_conv": Case(
        layer("transpose_conv", (3, 3, 4, 5), strides=(2, 2), padding="SAME"), recorded=(1, 12, 14, 5)
    ),
    "transpose_conv_valid": Case(
        layer("transpose_conv", (2, 2, 4, 5), strides=(2, 2), activation="relu"), recorded=(1, 12, 14, 5)
    ),
    "dense": Case(layer("dense", (12, 5), activation="relu"), ((1, 12),)),
    "dense_rows": Case(layer("dense", (4, 5)), ((1, 6, 4),)),
    "dense_image": Case(layer("dense", (4, 5)), ((1, 3, 2, 4),)),
    "matmul": Case({"op": "matmul"}, ((1, 5, 4), (1, 4, 3))),
    "matmul_heads": Case({"op": "matmul"}, ((1, 2, 5, 4), (1, 2, 4, 3))),
    "matmul_constant": Case({"op": "matmul"}, ((1, 5, 4), (4, 3))),
    "add": Case({"op": "add", "activation": "relu"}, TWO),
    "add_channels": Case({"op": "add"}, ((1, 6, 7, 4), (4,))),
    "sub": Case({"op": "sub", "activation": "relu6"}, TWO),
    "mul": Case({"op": "mul", "activation": "relu"}, TWO),
    "mul_number": Case({"op": "mul"}, ((1, 6, 7, 4), ())),
    "mul_channels": Case({"op": "mul"}, ((1, 6, 7, 4), (1, 1, 1, 4))),
    "div": Case({"op": "div"}, TWO, (0.5, 2.0)),
    "sub_across": Case({"op": "sub"}, ((1, 6, 1, 4), (1, 1, 7, 4))),
    "maximum": Case({"op": "maximum"}, TWO),
    "minimum": Case({"op": "minimum"}, TWO),
    "prelu": Case({"op": "prelu"}, ((1, 6, 7, 4), (1, 1, 4))),
    "mean": Case({"op": "mean", "axes": (1, 2)}, recorded=(1, 4)),
    "mean_kept": Case({"op": "mean", "axes": (1, 2)}, recorded=(1, 1, 1, 4)),
    "mean_channels": Case({"op": "mean", "axes": (3,)}, recorded=(1, 6, 7, 1)),
    "avg_pool": Case({"op": "avg_pool", "window": (3, 3), "strides": (2, 2), "padding": "SAME"}),
    "max_pool": Case({"op": "max_pool", "window": (2, 2), "strides": (2, 2), "activation": "relu"}),
    "relu": Case({"op": "clamp", "bounds": (0.0, np.inf)}),
    "relu6": Case({"op": "clamp", "bounds": (0.0, 6.0)}, span=(-3.0, 8.0)),
    "relu_n1_to_1": Case({"op": "clamp", "bounds": (-1.0, 1.0)}),
    "logistic": Case({"op": "logistic"}),
    "tanh": Case({"op": "tanh"}),
    "hard_swish": Case({"op": "hard_swish"}, span=(-5.0, 5.0)),
    "leaky_relu": Case({"op": "leaky_relu", "alpha": 0.25}),
    "softmax": Case({"op": "softmax", "alpha": 1.0}, ((1, 6, 9),)),
    "softmax_scaled": Case({"op": "softmax", "alpha": 0.5}, ((1, 10),)),
    "exp": Case({"op": "exp"}, span=(-2.0, 1.0)),
    "sqrt": Case({"op": "sqrt"}, span=(0.0, 4.0)),
    "rsqrt": Case({"op": "rsqrt"}, span=(0.25, 4.0)),
    "neg": Case({"op": "neg"}),
    "abs": Case({"op": "abs"}),
    "square": Case({"op": "square"}),
    "concat": Case({"op": "concat", "axis": 3}, ((1, 6, 7, 4), (1, 6, 7, 2), (1, 6, 7, 1))),
    "reshape": Case({"op": "reshape"}, recorded=(1, 42, 4)),
    "transpose_of_5": Case({"op": "transpose", "axes": (0, 3, 1, 4, 2)}, ((1, 2, 3, 4, 5),)),
    "transpose": Case({"op": "transpose", "axes": (0, 3, 1, 2)}),
    "pad": Case({"op": "pad", "spans": ((0, 0), (1, 2), (0, 1), (0, 0))}),
    "pad_value": Case({"op": "pad", "spans": ((0, 0), (1, 2), (0, 1), (0, 0)), "alpha": -1.5}),
    "slice": Case({"op": "slice", "spans": ((0, 1), (1, 2), (0, 3), (1, 1))}, recorded=(1, 3, 2, 3)),
    "slice_reversed": Case({"op": "slice", "spans": ((0, 1), (5, -1), (4, -2), (0, 1))}, recorded=(1, 6, 2, 4)),
    "resize_bilinear": Case({"op": "resize", "mode": "bilinear/half_pixel"}, recorded=(1, 12, 9, 4)),
    "resize_corners": Case({"op": "resize", "mode": "bilinear/align_corners"}, recorded=(1, 11, 13, 4)),
    "resize_nearest": Case({"op": "resize", "mode": "nearest"}, recorded=(1, 12, 14, 4)),
    "resize_nearest_half": Case({"op": "resize", "mode": "nearest/half_pixel"}, recorded=(1, 9, 5, 4)),
    "depth_to_space": Case({"op": "depth_to_space", "window": (2, 2)}),
}  # fmt: skip
EQUAL = ("avg_pool", "max_pool", "reshape", "transpose", "pad", "slice", "resize", "depth_to_space", "concat",
    "maximum", "minimum", "neg")  # fmt: skip
FIXED = {
    "logistic": (1 / 256, -128, 2**-15),
    "softmax": (1 / 256, -128, 2**-15),
    "tanh": (1 / 128, 0, 2**-15),
}


def scale_of(values: np.ndarray, dtype: str, centred: bool = False) -> Affine:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 1e-3)
    if dtype == "int16":
        return Affine(float(np.float32(max(-low, high) / 32767)), 0, "int16")
    if centred:
        return Affine(float(np.float32(max(-low, high) / 127)), 0)
    scale = float(np.float32((high - low) / 255))
    return Affine(scale, int(np.clip(round(-128 - low / scale), -128, 127)))


def program_of(case: Case, seed: int = 0) -> tuple[Program, dict[str, np.ndarray]]:
    """The float program of one node, and 3 values of each input; operands without a batch are constants."""
    rng = np.random.default_rng(seed)
    node = Node(inputs=tuple(f"x{i}" for i in range(len(case.shapes))), output="y", **case.node)
    shapes = dict(zip(node.inputs, case.shapes, strict=True))
    shapes["y"] = output_shape(node, case.shapes, case.recorded)
    fixed = [n for n in node.inputs if shapes[n][:1] != (1,) or (node.op, n) == ("prelu", "x1")]
    made = tuple(Node("constant", (), n, kernel=f"c/{n}", kernel_shape=shapes[n]) for n in fixed)
    graph = Graph(
        (*made, node), tuple(Tensor(n, s) for n, s in shapes.items()),
        tuple(n for n in node.inputs if n not in fixed), ("y",),
    )  # fmt: skip
    inputs = {n: rng.uniform(*case.span, (3, *shapes[n][1:])).astype(np.float32) for n in graph.inputs}
    params = {f"c/{n}": rng.uniform(*case.span, shapes[n]).astype(np.float32) for n in fixed}
    params["w/kernel"] = rng.normal(0, 0.4, node.kernel_shape).astype(np.float32)
    params["w/bias"] = rng.normal(0, 0.3, shapes["y"][-1:]).astype(np.float32)
    return Program(graph, params), inputs


def real_values(program: Program, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every tensor in float32."""
    graph, values = program.graph, {n: jnp.asarray(v) for n, v in inputs.items()}
    weights = weights_of(graph, program.params)
    for node in graph.nodes:
        operands = [values[i] for i in node.inputs]
        values[node.output] = apply_float(node, operands, weights, graph.shape(node.output))
    return {n: np.asarray(v) for n, v in values.items()}


def in_integers(
    program: Program, values: dict[str, np.ndarray], dtype: str, bias: str = "", per_tensor: bool = False
) -> Program:
    """The program in integers whose float weights are exactly those the integers stand for."""
    node, graph = program.graph.nodes[-1], program.graph
    scales = {n: scale_of(v, dtype, node.op == "neg") for n, v in values.items()}
    if node.op in EQUAL:
        scales = dict.fromkeys(
            values,
            scale_of(np.concatenate([v.reshape(-1) for v in values.values()]), dtype, node.op == "neg"),
        )
    if node.op in FIXED:
        eight, zero, sixteen = FIXED[node.op]
        scales["y"] = Affine(eight, zero) if dtype == "int8" else Affine(sixteen, 0, "int16")
    integers, params = {}, dict(program.params)
    for made in graph.nodes[:-1]:
        data = scales[made.output].quantise(values[made.output])
        integers[made.output] = IntegerWeights(data, np.ones(1, np.float32), np.zeros(0, np.int32))
        params[str(made.kernel)] = scales[made.output].real(data)
    if node.op in WEIGHTED:
        kernel = params["w/kernel"]
        scale = np.abs(kernel).reshape(-1, kernel.shape[-1]).max(0) / np.float32(127)
        scale = scale.max(keepdims=True) if per_tensor else scale
        rows = scale.reshape((1,) * (kernel.ndim - 1) + (-1,))
        unit = scale.astype(np.float64) * scales["x0"].scale
        wanted = np.zeros(kernel.shape[-1]) if node.bias is None else params["w/bias"] / unit
        whole = np.rint(wanted).astype(bias or ("int64" if dtype == "int16" else "int32"))
        integers["y"] = IntegerWeights(np.rint(kernel / rows).astype(np.int8), scale, whole)
        params |= {"w/kernel": integers["y"].kernel * rows, "w/bias": (whole * unit).astype(np.float32)}
    return Program(graph, params, scales, integers)


def steps_apart(program: Program, inputs: dict[str, np.ndarray], reference: bool) -> float:
    """Largest distance of the file's output from the float meaning of the same integers, in output steps."""
    whole = {n: program.scales[n].quantise(v) for n, v in inputs.items()}
    (got,) = run_raw(write(program), [whole[n] for n in program.graph.inputs], reference=reference)
    wanted = real_values(program, {n: program.scales[n].real(v) for n, v in whole.items()})["y"]
    out = program.scales["y"]
    low, high = (out.real(np.array(limit)) for limit in LIMITS[out.dtype])
    assert got.dtype == out.dtype
    return float(np.abs(out.real(got) - np.clip(wanted, low, high)).max() / out.scale)
