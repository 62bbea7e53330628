"""A .tflite file without trust: its tensors and operators, checked, or one ValueError that says what is wrong.

Field numbers are those of TensorFlow Lite's schema.fbs, version 3. Whatever is read here, and native code (LiteRT,
Vela) that is handed the file afterwards, finds every index in range, every constant as long as its shape says,
every tensor made before it is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from research.graph.flatbuffer import File, Table, damaged

MOST_BYTES = 2**30  # of all tensors that are no constants together
RANK = 8

DTYPES = (
    "float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8", "float64",
    "complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16", "int2", "uint4",
)  # fmt: skip  # TensorType, by number
_CODES = (
    "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR"
    " FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC"
    " LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX"
    " SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD"
    " UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE"
    " UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE"
    " BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL"
    " LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT"
    " RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT"
    " UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR"
    " LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK"
    " ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4"
    " NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL PLACEHOLDER CUMSUM CALL_ONCE"
    " BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE"
    " REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL"
    " BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1"
)  # BuiltinOperator, by number, without those for StableHLO
CODES = _CODES.split()
_WHOLE = ("int8", "uint8", "int16")
_ALIKE = frozenset({  # operators whose tensors of numbers are all of one type
    "ABS", "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "DEPTH_TO_SPACE", "DIV", "EXP", "EXPAND_DIMS", "HARD_SWISH",
    "LEAKY_RELU", "LOGISTIC", "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MUL", "NEG", "PACK", "PAD", "PADV2",
    "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "RSQRT",
    "SLICE", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQRT", "SQUARE", "SQUEEZE", "STRIDED_SLICE", "SUB",
    "TANH", "TRANSPOSE", "UNPACK",
})  # fmt: skip
# BuiltinOptions, by operator; 0 or an operator that is not here: not looked at.
OPTIONS = MappingProxyType({
    "CONV_2D": 1, "DEPTHWISE_CONV_2D": 2, "AVERAGE_POOL_2D": 5, "MAX_POOL_2D": 5, "FULLY_CONNECTED": 8, "SOFTMAX": 9,
    "CONCATENATION": 10, "ADD": 11, "RESIZE_BILINEAR": 15, "RESHAPE": 17, "SPACE_TO_DEPTH": 19, "MUL": 21, "GATHER": 23,
    "MEAN": 27, "SUM": 27, "REDUCE_MAX": 27, "SUB": 28, "DIV": 29, "SQUEEZE": 30, "STRIDED_SLICE": 32,
    "TRANSPOSE_CONV": 49, "PACK": 59, "UNPACK": 64, "RESIZE_NEAREST_NEIGHBOR": 74, "LEAKY_RELU": 75,
    "DEPTH_TO_SPACE": 94, "BATCH_MATMUL": 101,
})  # fmt: skip
_VECTOR_OPTIONS = (17, 30)  # ReshapeOptions and SqueezeOptions: their field 0 is a vector
_SPARSE_INDICES = {1: "<i4", 2: "<u2", 3: "u1"}  # SparseIndexVector: Int32Vector, Uint16Vector, Uint8Vector


class Quantisation(NamedTuple):
    """real = scale * (integer - zero_point), [1] each, or one for each index along `axis`."""

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int


class Tensor(NamedTuple):
    """A tensor of the file. data: the numbers of a constant, in `shape`; sparse ones are made dense.

    signature: the shape with -1 where it is open, () if it says nothing. variable: kept from run to run.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: np.ndarray | None
    quantisation: Quantisation | None
    signature: tuple[int, ...]
    variable: bool


class Operator(NamedTuple):
    """An operator: indices of its tensors (-1: left out), its options by field number."""

    code: str
    custom: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Table | None
    custom_options: bytes


class Model(NamedTuple):
    """A checked file of one subgraph."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    metadata: Mapping[str, bytes]


def _quantisation(table: Table, name: str, shape: Sequence[int]) -> Quantisation | None:
    scale, zero = table.vector(2, "<f4"), table.vector(3, "<i8")
    axis = table.integer(6) if len(shape) > 1 else 0  # old converters give a bias the axis of its kernel
    if table.integer(4, "B"):
        raise ValueError(f"tensor {name!r} is quantised in blocks; only .tflite scales by axis are read")
    if not scale.size:
        return None
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise damaged(f"a scale of tensor {name!r} is not a positive number")
    fits = scale.size == 1 or (0 <= axis < len(shape) and shape[axis] == scale.size)
    if zero.size != scale.size or not fits:
        counts = f"{scale.size} scales and {zero.size} zero points along axis {axis}"
        raise damaged(f"tensor {name!r} {tuple(shape)} has {counts}")
    return Quantisation(scale, zero, axis)


def _sparse_indices(level: Table, kind: int) -> np.ndarray:
    values = level.table(kind + 1)
    found = None if values is None else values.vector(0, _SPARSE_INDICES.get(level.integer(kind, "B"), "u1"))
    return np.zeros(0, np.int64) if found is None else found.astype(np.int64)


def _dense(table: Table, values: np.ndarray, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A sparse constant as a dense one (SparsityParameters; the format of Kjolstad et al. 2017, "taco").

    The levels are the axes in `order`, then those inside blocks (LiteRT's own reader takes no other order); a dense
    level visits every index, a compressed one those listed. Followed here is the place of every entry in the dense
    array, level by level.
    """
    broken = damaged(f"the sparse constant {name!r} of {values.size} numbers does not fit {shape}")
    size, rank, places = prod(shape), len(shape), np.zeros(1, np.int64)
    table.file.spend(copied=size)
    order, blocked = table.vector(0, "<i4").tolist(), table.vector(1, "<i4").tolist()
    levels = table.tables(2)
    if sorted(order) != list(range(rank + len(set(blocked)))) or len(levels) != len(order):
        raise broken
    blocks = {
        blocked[t - rank]: level.integer(1) for t, level in zip(order, levels, strict=True) if t >= rank
    }
    if any(not 0 <= axis < rank or b < 1 or shape[axis] % b for axis, b in blocks.items()):
        raise broken
    for t, level in zip(order, levels, strict=True):
        axis = t if t < rank else blocked[t - rank]
        block, step = blocks.get(axis, 1), prod(shape[axis + 1 :])
        count, step = (shape[axis] // block, step * block) if t < rank else (block, step)
        if level.integer(0, "b") == 0:
            if places.size * count > size:
                raise broken
            places = (places[:, None] + step * np.arange(count)).reshape(-1)
            continue
        segments, indices = _sparse_indices(level, 2), _sparse_indices(level, 4)
        lengths = np.diff(segments)
        whole = segments.size == places.size + 1 and segments[0] == 0 and segments[-1] == indices.size
        if not whole or (lengths < 0).any() or ((indices < 0) | (indices >= count)).any():
            raise broken
        places = np.repeat(places, lengths) + indices * step
    if places.size != values.size:
        raise broken
    dense = np.zeros(size, values.dtype)
    dense[places] = values
    return dense.reshape(shape)


def _tensor(table: Table, buffers: Sequence[np.ndarray]) -> Tensor:
    name, shape = table.text(3), tuple(table.vector(0, "<i4").tolist())
    if any(s < 0 for s in shape):
        raise ValueError(f"tensor {name!r} has an unknown dimension: fix the batch size before export")
    if len(shape) > RANK:
        raise damaged(f"tensor {name!r} has shape {shape}")
    kind, buffer = table.integer(1, "b"), table.integer(2, "I")
    quantised, sparsity = table.table(4), table.table(6)
    if buffer >= len(buffers) or not 0 <= kind < len(DTYPES):
        raise damaged(f"tensor {name!r} has buffer {buffer} of {len(buffers)}, type {kind} of {len(DTYPES)}")
    dtype = DTYPES[kind]
    data: np.ndarray | None = buffers[buffer] if buffers[buffer].size else None
    if data is not None:
        if dtype not in np.sctypeDict:
            raise ValueError(
                f"tensor {name!r} of the .tflite file is a constant of {dtype}, which is not read"
            )
        wanted = prod(shape) * np.dtype(dtype).itemsize
        if data.size % np.dtype(dtype).itemsize or (sparsity is None and data.size != wanted):
            raise damaged(f"tensor {name!r} {dtype} {shape} has {data.size} bytes")
        data = data.view(np.dtype(dtype).newbyteorder("<"))
        data = data.reshape(shape) if sparsity is None else _dense(sparsity, data, name, shape)
    quantisation = None if quantised is None else _quantisation(quantised, name, shape)
    if quantisation is not None and data is None and dtype in _WHOLE:
        limits, zero = np.iinfo(dtype), quantisation.zero_point
        scale, outside = quantisation.scale, (zero < limits.min) | (zero > limits.max)
        if (outside | (abs(np.log2(scale)) > 120)).any():
            raise damaged(f"tensor {name!r} has scale {scale[0]:g}, zero point {zero[0]} or others as wild")
    signature = tuple(table.vector(7, "<i4").tolist())
    return Tensor(name, shape, dtype, data, quantisation, signature, bool(table.number(5, "?")))


def _operator(table: Table, codes: Sequence[tuple[str, str]]) -> Operator:
    code, kind = table.integer(0, "I"), table.integer(3, "B")
    if code >= len(codes):
        raise damaged(f"an operator has code {code} of {len(codes)}")
    if kind not in (0, OPTIONS.get(codes[code][0], kind)):
        raise damaged(f"an operator ({codes[code][0]}) has options of type {kind}")
    options = table.table(4) if kind else None
    if options is not None and kind in _VECTOR_OPTIONS:
        options.vector(0, "<i4")
    table.vector(7, "u1"), table.vector(8, "<i4"), table.table(12)  # read by native code
    inputs, outputs = (tuple(table.vector(field, "<i4").tolist()) for field in (1, 2))
    return Operator(*codes[code], inputs, outputs, options, table.copied(5))


def _check_formats(number: int, operator: Operator, touched: Sequence[Tensor]) -> None:
    """What native kernels take for granted of the tensors of an operator."""
    what = f"operator {number} ({operator.code})"
    quantised = any(t.quantisation for t in touched if t.dtype in _WHOLE)
    for tensor in touched:
        if 0 in tensor.shape or (quantised and tensor.dtype in _WHOLE and not tensor.quantisation):
            found = f"{tensor.name!r} {tensor.dtype}, whose shape {tensor.shape} or scale is lost"
            raise damaged(f"{what} meets {found}")
    kinds = {t.dtype for t in touched if t.dtype in (*_WHOLE, "float16", "float32")}
    lacking = -1 in operator.inputs[:2] and "LSTM" not in operator.code
    if lacking or (operator.code in _ALIKE and len(kinds) > 1):
        raise damaged(f"{what} mixes {', '.join(sorted(kinds))} or lacks an input")


def _check_order(model: Model) -> None:
    """Every tensor is made once, before it is read."""
    count, number = len(model.tensors), 0
    made = {i for i, t in enumerate(model.tensors) if t.data is not None or t.variable}
    if len(set(model.inputs)) != len(model.inputs) or made & set(model.inputs):
        raise damaged("an input of the network is a constant or given twice")
    made |= set(model.inputs)
    for number, operator in enumerate(model.operators):
        if not operator.outputs or any(not 0 <= i < count for i in operator.outputs):
            raise damaged(f"operator {number} has no output tensor")
        for i in operator.inputs:
            if not -1 <= i < count:
                raise damaged(f"operator {number} ({operator.code}) reads tensor {i} of {count}")
            if i >= 0 and i not in made:
                name = f"{model.tensors[i].name!r}, which nothing before it makes"
                raise damaged(f"operator {number} ({operator.code}) reads {name}")
        if made & set(operator.outputs) or len(set(operator.outputs)) != len(operator.outputs):
            raise damaged(f"operator {number} ({operator.code}) makes a tensor that is there already")
        made |= set(operator.outputs)
        touched = [model.tensors[i] for i in (*operator.inputs, *operator.outputs) if i >= 0]
        _check_formats(number, operator, touched)
    if not set(model.outputs) <= made or not model.outputs:
        raise damaged("an output of the network is never made")


def unpack(model: bytes) -> Model:
    """The checked contents of a .tflite file; constants are views of its bytes.

    TypeError where `model` is not bytes. ValueError, one line, for anything that is not a sound file of one
    subgraph: offsets and sizes that do not fit, indices out of range, constants whose bytes do not fill their
    shape, shapes that are open or zero, scales that are not positive or do not fit, tensors read before they are
    made, more than `MOST_BYTES` of activations.
    """
    if not isinstance(model, bytes | bytearray):
        raise TypeError(f"model must be the bytes of a .tflite file, got {type(model).__name__}")
    if len(model) < 32 or model[4:8] != b"TFL3":
        raise ValueError(f"not a .tflite file ({len(model)} bytes, no TFL3 mark): is it a TFLite model?")
    root = File(bytes(model)).root()
    codes = [(max(c.integer(0, "b"), c.integer(3)), c.text(1)) for c in root.tables(1)]
    named = [(CODES[n] if 0 <= n < len(CODES) else f"BUILTIN_{n}", custom) for n, custom in codes]
    buffers = [b.vector(0, "u1") for b in root.tables(4)]
    subgraphs = root.tables(2)
    if not subgraphs:
        raise damaged("no subgraph")
    if len(subgraphs) > 1:
        raise ValueError(f"the .tflite file has {len(subgraphs)} subgraphs; only files with one can be read")
    graph, metadata = subgraphs[0], dict[str, bytes]()
    tensors = tuple(_tensor(t, buffers) for t in graph.tables(0))
    operators = tuple(_operator(o, named) for o in graph.tables(3))
    inputs, outputs = (tuple(graph.vector(field, "<i4").tolist()) for field in (1, 2))
    signed = [entry for s in root.tables(7) for field in (0, 1) for entry in s.tables(field)]
    ends = *inputs, *outputs, *(e.integer(1, "I") for e in signed)
    if any(not 0 <= i < len(tensors) for i in ends):
        raise damaged("an input or output of the network is no tensor")
    for entry in root.tables(6):
        if entry.integer(1, "I") >= len(buffers):
            raise damaged("a metadata entry has no buffer")
        data = buffers[entry.integer(1, "I")]
        entry.file.spend(copied=data.size)
        metadata[entry.text(0)] = data.tobytes()
    found = Model(tensors, operators, inputs, outputs, metadata)
    _check_order(found)
    live = [t for t in tensors if t.data is None]
    total = sum(prod(t.shape) * (np.dtype(t.dtype).itemsize if t.dtype in np.sctypeDict else 1) for t in live)
    if total > MOST_BYTES:
        raise ValueError(f"the tensors of this .tflite file take {total} bytes, at most {MOST_BYTES} may be")
    return found


def verify(model: bytes) -> None:
    """Raises unless native code (LiteRT, Vela) can be trusted with the file's structure. Errors as `unpack`."""
    unpack(model)


def operator_names(model: bytes) -> tuple[str, ...]:
    """Name of the first output tensor of every operator, in file order. Errors as `unpack`, and for no operator."""
    found = unpack(model)
    if not found.operators:
        raise ValueError("the .tflite file has no operator: nothing to price")
    return tuple(found.tensors[o.outputs[0]].name for o in found.operators)
