"""What a .tflite file can hold: TFLite's operators, their options, and which number formats LiteRT computes in.

`CODES`: the operator an operation becomes; those that become different ones (clamp, pad, resize, quantize) have
a rule in `operator_code`. `VERSIONS`: of each operator for float32, int8 and int16; 0: LiteRT has no such
kernel. `OPTIONS`: the table of its options, where that is not called like the operator.

Every version was run in LiteRT 2.3, reference and default kernels; a kernel that gives wrong results counts as
none (PRELU in int16). NEG in int8 negates the plain integer: right with one scale and opposite zero points only.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from types import MappingProxyType

from research.graph.interpret import ACTIVATION_BOUNDS
from research.graph.ir import WEIGHTED, Activation, Node, Op
from research.graph.program import Program
from research.graph.tflite import schema

TYPES = ("float32", "int8", "int16")


VERSIONS: Mapping[str, tuple[int, int, int]] = MappingProxyType({
    "CONV_2D": (1, 3, 4), "DEPTHWISE_CONV_2D": (2, 3, 5), "TRANSPOSE_CONV": (4, 4, 4),
    "FULLY_CONNECTED": (5, 12, 12), "BATCH_MATMUL": (1, 2, 3), "ADD": (1, 2, 3), "SUB": (1, 2, 5),
    "MUL": (1, 3, 4), "DIV": (1, 1, 1), "MAXIMUM": (1, 2, 4), "MINIMUM": (1, 2, 4), "PRELU": (1, 1, 0),
    "MEAN": (1, 2, 3), "AVERAGE_POOL_2D": (1, 2, 3), "MAX_POOL_2D": (1, 2, 3), "RELU": (1, 2, 3),
    "RELU6": (1, 2, 3), "RELU_N1_TO_1": (1, 1, 0), "LOGISTIC": (1, 2, 3), "TANH": (1, 2, 3),
    "HARD_SWISH": (1, 1, 0), "LEAKY_RELU": (1, 2, 2), "SOFTMAX": (1, 2, 3), "EXP": (1, 2, 2),
    "SQRT": (1, 1, 1), "RSQRT": (1, 2, 3), "NEG": (1, 1, 1), "ABS": (1, 2, 3), "SQUARE": (1, 0, 0),
    "CONCATENATION": (1, 2, 3), "RESHAPE": (1, 1, 1), "TRANSPOSE": (1, 2, 4), "PAD": (1, 2, 3),
    "PADV2": (1, 2, 3), "STRIDED_SLICE": (1, 2, 4), "RESIZE_BILINEAR": (3, 3, 4),
    "RESIZE_NEAREST_NEIGHBOR": (3, 3, 4), "DEPTH_TO_SPACE": (1, 1, 0), "QUANTIZE": (0, 2, 2),
    "DEQUANTIZE": (0, 2, 3),
})  # fmt: skip
OPTIONS: Mapping[str, str] = MappingProxyType({
    "PADV2": "PadV2Options", "BATCH_MATMUL": "BatchMatMulOptions", "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions", "MEAN": "ReducerOptions", "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
})  # fmt: skip
CODES: Mapping[Op, str] = MappingProxyType({
    "conv": "CONV_2D", "depthwise": "DEPTHWISE_CONV_2D", "transpose_conv": "TRANSPOSE_CONV",
    "dense": "FULLY_CONNECTED", "matmul": "BATCH_MATMUL", "add": "ADD", "sub": "SUB", "mul": "MUL", "div": "DIV",
    "maximum": "MAXIMUM", "minimum": "MINIMUM", "prelu": "PRELU", "mean": "MEAN", "avg_pool": "AVERAGE_POOL_2D",
    "max_pool": "MAX_POOL_2D", "logistic": "LOGISTIC", "tanh": "TANH", "hard_swish": "HARD_SWISH",
    "leaky_relu": "LEAKY_RELU", "softmax": "SOFTMAX", "exp": "EXP", "sqrt": "SQRT", "rsqrt": "RSQRT",
    "neg": "NEG", "abs": "ABS", "square": "SQUARE", "concat": "CONCATENATION", "reshape": "RESHAPE",
    "transpose": "TRANSPOSE", "slice": "STRIDED_SLICE", "depth_to_space": "DEPTH_TO_SPACE",
})  # fmt: skip
CLAMPS: Mapping[tuple[float, float], Activation] = MappingProxyType(
    {bounds: name for name, bounds in ACTIVATION_BOUNDS.items() if name != "none"}
)
ACTIVATED: tuple[Op, ...] = (*WEIGHTED, "add", "sub", "mul", "div", "avg_pool", "max_pool")


def operator_code(program: Program, node: Node) -> str:
    """The TFLite operator of a node. KeyError for a clamp to bounds that are no activation."""
    if node.op == "pad":
        return "PADV2" if node.alpha else "PAD"
    if node.op == "resize":
        return "RESIZE_BILINEAR" if node.mode.startswith("bilinear") else "RESIZE_NEAREST_NEIGHBOR"
    if node.op == "quantize":
        return "QUANTIZE" if node.output in program.scales else "DEQUANTIZE"
    if node.op == "clamp":
        return CLAMPS[node.bounds or (-inf, inf)].upper()
    return CODES[node.op]


def operator_options(code: str) -> str | None:
    """Name of the options of an operator in TFLite's schema, None where it has none."""
    name = OPTIONS.get(code, code.title().replace("_", "") + "Options")
    return name if hasattr(schema(), name + "T") else None


def sums_in_int32(program: Program, node: Node) -> bool:
    """Whether a layer is int16x8 with an int32 bias: LiteRT then sums in int32, if the options say so too.

    ValueError for a bias of a type that LiteRT does not take.
    """
    if node.op not in WEIGHTED or node.output not in program.integers:
        return False
    dtype, bias = program.dtype(node.output), program.integers[node.output].bias.dtype.name
    allowed = {"int8": ["int32"], "int16": ["int64"] if node.op == "depthwise" else ["int32", "int64"]}
    if bias not in allowed.get(dtype, [bias]):
        raise ValueError(
            f"{node.output!r} ({node.op}, {dtype}) has an {bias} bias; LiteRT takes {' or '.join(allowed[dtype])}"
        )
    return dtype == "int16" and bias == "int32"


def operator_version(program: Program, node: Node) -> int:
    """Version of a node's operator for the types it meets. ValueError for a mixture or where LiteRT has no kernel."""
    code = operator_code(program, node)
    types = [program.dtype(t) for t in (*node.inputs, node.output)]
    if node.op == "quantize":
        if types in (["float32", "float32"], ["int16", "uint8"]):
            raise ValueError(f"{node.output!r}: LiteRT does not convert {types[0]} to {types[1]}")
        return VERSIONS[code][2 if "int16" in types else 1]
    if len(set(types)) != 1:
        mixed = ", ".join(sorted(set(types)))
        raise ValueError(f"{node.output!r} ({node.op}) mixes {mixed}; put a quantize node between")
    version = dict(zip(TYPES, VERSIONS[code], strict=True)).get(types[0])
    if not version:
        raise ValueError(f"{node.output!r}: LiteRT has no {types[0]} kernel of {code}; use another type")
    return {"CONV_2D": 8, "TRANSPOSE_CONV": 5}.get(code, version) if sums_in_int32(program, node) else version
