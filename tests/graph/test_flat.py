"""The flatbuffer without trust: it says what the schema's own reader says, and refuses damage with one clear line."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import flatbuffers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.graph.flat import CODES, DTYPES, OPTIONS, operator_names, unpack, verify
from research.graph.runtime import run_raw
from research.graph.tflite import IDENTIFIER, Writer, schema

KERNEL = np.arange(-18, 18, dtype=np.int8).reshape(2, 3, 3, 2)


def small() -> bytes:
    """A convolution and a relu in int8."""
    writer = Writer("small")
    x = writer.tensor("x", (1, 5, 4, 2), np.int8, 0.5, -4)
    kernel = writer.tensor("kernel", KERNEL.shape, np.int8, np.float32([0.1, 0.2]), 0, KERNEL)
    bias = writer.tensor("bias", (2,), np.int32, np.float32([0.05, 0.1]), 0, np.int32([7, -7]))
    middle, y = (writer.tensor(name, (1, 5, 4, 2), np.int8, 0.25, 3) for name in ("middle", "y"))
    fields = {"strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
    writer.operator("CONV_2D", 3, [x, kernel, bias], middle, "Conv2DOptions", fields)
    writer.operator("RELU", 2, [middle], y, None, {})
    return writer.finish([x], [y], {"note": "hello"})


MODEL = small()


def test_it_says_what_the_schema_says() -> None:
    model, graph = unpack(MODEL), opened().subgraphs[0]
    assert [t.name for t in model.tensors] == [t.name.decode() for t in graph.tensors]
    assert [t.shape for t in model.tensors] == [tuple(t.shape) for t in graph.tensors]
    assert [t.dtype for t in model.tensors] == ["int8", "int8", "int32", "int8", "int8"]
    assert (
        [o.inputs for o in model.operators] == [tuple(o.inputs) for o in graph.operators] == [(0, 1, 2), (3,)]
    )
    assert [o.code for o in model.operators] == ["CONV_2D", "RELU"]
    assert (model.inputs, model.outputs, model.metadata) == ((0,), (4,), {"note": b"hello"})
    np.testing.assert_array_equal(cast(np.ndarray, model.tensors[1].data), KERNEL)
    for ours, theirs in zip(model.tensors, graph.tensors, strict=True):
        assert ours.quantisation is not None
        np.testing.assert_array_equal(ours.quantisation.scale, theirs.quantization.scale)
        np.testing.assert_array_equal(ours.quantisation.zero_point, theirs.quantization.zeroPoint)
    options = model.operators[0].options
    assert options is not None
    assert [options.integer(field, default=7) for field in (1, 2, 99)] == [1, 1, 7]


@pytest.mark.parametrize(("ours", "theirs"), [(CODES, "BuiltinOperator"), (DTYPES, "TensorType")])
def test_the_names_are_those_of_the_schema(ours: list[str], theirs: str) -> None:
    known = vars(getattr(schema(), theirs))
    for number, name in enumerate(ours):
        assert known.get(name.upper(), number) == number
    assert sum(name.upper() in known for name in ours) >= len(ours) - 1  # but for a placeholder


def test_every_operator_has_its_own_options() -> None:
    names = {
        n: name.removesuffix("Options") for name, n in vars(schema().BuiltinOptions).items() if name[0] != "_"
    }
    shared = {"Reducer": ("MEAN", "SUM", "REDUCE_MAX"), "Pool2D": ("AVERAGE_POOL_2D", "MAX_POOL_2D")}
    for code, kind in OPTIONS.items():
        assert code in shared.get(names[kind], ()) or names[kind].upper() == code.replace("_", "")


def test_operators_have_the_names_of_their_outputs() -> None:
    assert operator_names(MODEL) == ("middle", "y")


@pytest.mark.parametrize(
    ("junk", "message"),
    [
        (b"", "not a .tflite"),
        (b"hello", "not a .tflite"),
        (b"\0" * 200, "no TFL3 mark"),
        (b"\x10\0\0\0TFL3" + b"\xff" * 200, "damaged .tflite"),
        (b"\x10\0\0\0TFL3" + b"\0" * 200, "damaged .tflite"),
        (b"\xff\xff\xff\xffTFL3" + b"\0" * 200, "damaged .tflite: offset 4294967295 outside 208 bytes"),
    ],
)
def test_junk_is_refused(junk: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        operator_names(junk)


def test_text_is_no_model() -> None:
    with pytest.raises(TypeError, match="bytes"):
        operator_names(cast(bytes, "TFL3"))


def test_a_file_without_operators_has_nothing_to_price() -> None:
    writer = Writer("empty")
    x = writer.tensor("x", (1, 2), np.float32)
    verify(writer.finish([x], [x], {}))
    with pytest.raises(ValueError, match="no operator: nothing to price"):
        operator_names(writer.finish([x], [x], {}))


def packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(1 << 10)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def opened(model: bytes = MODEL) -> Any:
    """The schema's own objects of a file, to be changed."""
    return schema().ModelT.InitFromPackedBuf(bytearray(model), 0)


def changed(where: str, value: Any) -> bytes:
    """The small file with a field of its subgraph set, "tensors.1.shape"."""
    model = opened()
    *path, last = where.split(".")
    held = model.subgraphs[0]
    for name in path:
        held = held[int(name)] if name.isdigit() else getattr(held, name)
    setattr(held, last, value)
    return packed(model)


HOSTILE: dict[str, tuple[str, Any]] = {
    "buffer 77 of": ("tensors.1.buffer", 77),
    r"tensor 'kernel' int8 \(2, 3, 3, 3\) has 36 bytes": ("tensors.1.shape", [2, 3, 3, 3]),
    "tensor 'kernel' float32": ("tensors.1.type", 0),
    "type 120 of 21": ("tensors.1.type", 120),
    "constant of string": ("tensors.1.type", 5),
    "'middle' has an unknown dimension: fix the batch size": ("tensors.3.shape", [-1, 5, 4, 2]),
    r"meets 'middle' int8, whose shape \(1, 0, 4, 2\)": ("tensors.3.shape", [1, 0, 4, 2]),
    "meets 'middle' int8, whose shape .* or scale is lost": ("tensors.3.quantization", None),
    r"has shape \(1, 1, 1, 1, 1, 1, 1, 1, 1\)": ("tensors.3.shape", [1] * 9),
    "take 1.* bytes, at most 1073741824 may be": ("tensors.3.shape", [1, 40000, 40000, 1]),
    "a scale of tensor 'middle' is not a positive": ("tensors.3.quantization.scale", [0.0]),
    "a scale of tensor 'kernel' is not a positive": ("tensors.1.quantization.scale", [np.nan, 1.0]),
    "3 scales and 2 zero points along axis 0": ("tensors.1.quantization.scale", [1.0, 2.0, 3.0]),
    "1 scales and 2 zero points": ("tensors.3.quantization.zeroPoint", [1, 2]),
    "2 scales and 2 zero points along axis 9": ("tensors.1.quantization.quantizedDimension", 9),
    "'middle' has scale 9.99995e-41, zero point 3": ("tensors.3.quantization.scale", [1e-40]),
    "'middle' has scale 0.25, zero point 300": ("tensors.3.quantization.zeroPoint", [300]),
    r"operator 1 \(RELU\) mixes float32, int8": ("tensors.4.type", 0),
    r"operator 0 \(CONV_2D\) mixes int8 or lacks an input": ("operators.0.inputs", [0, -1, 2]),
    r"an operator \(CONV_2D\) has options of type 5": ("operators.0.builtinOptionsType", 5),
    "an operator has code 5 of 2": ("operators.0.opcodeIndex", 5),
    r"operator 1 \(RELU\) reads tensor 9 of 5": ("operators.1.inputs", [9]),
    r"operator 1 \(RELU\) reads tensor -2 of 5": ("operators.1.inputs", [-2]),
    r"operator 0 \(CONV_2D\) reads 'y', which nothing before it makes": ("operators.0.inputs", [4, 1, 2]),
    "operator 1 has no output tensor": ("operators.1.outputs", []),
    "operator 0 has no output tensor": ("operators.0.outputs", [5]),
    r"operator 1 \(RELU\) makes a tensor that is there already": ("operators.1.outputs", [3]),
    r"operator 0 \(CONV_2D\) makes a tensor that is there": ("operators.0.outputs", [3, 3]),
    "a constant or given twice": ("inputs", [0, 0]),
    "an input of the network is a constant": ("inputs", [1]),
    r"reads 'x', which nothing before it makes": ("inputs", []),
    "an input or output of the network is no tensor": ("outputs", [9]),
    "input or output of the network is no tensor": ("inputs", [-1]),
    "an output of the network is never made": ("outputs", []),
}


@pytest.mark.parametrize("message", HOSTILE)
def test_hostile_numbers_are_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verify(changed(*HOSTILE[message]))


@pytest.mark.parametrize(
    ("count", "message"), [(0, "no subgraph"), (2, "has 2 subgraphs; only files with one")]
)
def test_only_one_subgraph_is_read(count: int, message: str) -> None:
    model = opened()
    model.subgraphs = model.subgraphs * count
    with pytest.raises(ValueError, match=message):
        verify(packed(model))


def test_metadata_needs_its_buffer() -> None:
    model = opened()
    model.metadata[0].buffer = 99
    with pytest.raises(ValueError, match="a metadata entry has no buffer"):
        verify(packed(model))


def test_a_bias_may_have_the_axis_of_its_kernel() -> None:
    """As old converters write it; it has one axis only."""
    model = unpack(changed("tensors.2.quantization.quantizedDimension", 3))
    assert model.tensors[2].quantisation is not None
    assert model.tensors[2].quantisation.axis == 0


def test_copies_of_one_buffer_are_refused_in_time() -> None:
    model = opened()
    model.buffers[-1].data = np.zeros(2**20, np.uint8)
    model.metadata *= 70
    with pytest.raises(ValueError, match="its tables hold far more than its"):
        verify(packed(model))


def aliased(tables: int) -> bytes:
    """A file whose tensors are all one and the same table, with a name of 64 kB."""
    builder = flatbuffers.Builder(1 << 10)
    name = builder.CreateString("n" * (1 << 16))
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(3, name, 0)
    tensor = builder.EndObject()
    builder.StartVector(4, tables, 4)
    for _ in range(tables):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, tensors, 0)
    subgraph = builder.EndObject()
    builder.StartVector(4, 1, 4)
    builder.PrependUOffsetTRelative(subgraph)
    subgraphs = builder.EndVector()
    builder.StartObject(8)
    builder.PrependUOffsetTRelativeSlot(2, subgraphs, 0)
    builder.Finish(builder.EndObject(), IDENTIFIER)
    return bytes(builder.Output())


def test_bytes_that_are_used_again_and_again_are_refused_in_time() -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match="its tables hold far more than its"):
        verify(aliased(30_000))
    assert time.process_time() - start < 2.0


def refused_or_sound(model: bytes) -> bool:
    """True if the file is refused, with one line; its contents hold together otherwise."""
    try:
        found = unpack(model)
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert "\n" not in refusal
        assert ".tflite" in refusal or "tensor" in refusal
        return True
    for operator in found.operators:
        assert all(-1 <= i < len(found.tensors) for i in operator.inputs)
        assert all(0 <= i < len(found.tensors) for i in operator.outputs)
    for tensor in found.tensors:
        assert tensor.data is None or tensor.data.shape == tensor.shape
    return False


@given(st.binary(max_size=400), st.booleans())
def test_random_bytes(junk: bytes, marked: bool) -> None:
    assert refused_or_sound(b"\x10\0\0\0TFL3" + junk if marked else junk)


@given(st.integers(0, len(MODEL) - 1))
def test_a_file_cut_short_is_refused(length: int) -> None:
    assert refused_or_sound(MODEL[:length])


@given(
    st.lists(
        st.tuples(st.integers(0, len(MODEL) // 4 - 1), st.one_of(st.integers(-64, 64), st.integers(0, 2**32 - 1))),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_numbers_overwritten(changes: list[tuple[int, int]]) -> None:
    words = np.frombuffer(MODEL, "<u4", len(MODEL) // 4).copy()
    for at, value in changes:
        words[at] = value % 2**32
    refused_or_sound(words.tobytes())


def sparse(dense: np.ndarray, order: list[int], blocks: dict[int, int], listed: set[int]) -> Any:
    """(SparsityParameters, the numbers) of an array; levels of `listed` axes keep only what is not all zero."""
    lib, rank, axes = schema(), dense.ndim, list(blocks)
    split = dense.reshape(
        [n for a, s in enumerate(dense.shape) for n in (s // blocks.get(a, 1), blocks.get(a, 1))]
    )
    split = split.transpose([*range(0, 2 * rank, 2), *(2 * a + 1 for a in axes), *(2 * a + 1 for a in range(rank)
                                                                                 if a not in axes)])  # fmt: skip
    entries = [split.reshape(split.shape[: rank + len(axes)]).transpose(order)]
    parameters = lib.SparsityParametersT()
    parameters.traversalOrder, parameters.blockMap, parameters.dimMetadata = order, axes, []
    for axis in order:
        level = lib.DimensionMetadataT()
        level.denseSize, parts, segments, indices = entries[0].shape[0] if entries else 1, [], [0], []
        for entry in entries:
            kept = [i for i in range(len(entry)) if axis not in listed or entry[i].any()]
            parts += [entry[i] for i in kept]
            indices += kept
            segments.append(len(indices))
        if axis in listed:
            level.format = 1
            for name, values, kind in (
                ("arraySegments", segments, "Int32"),
                ("arrayIndices", indices, "Uint8"),
            ):
                vector = getattr(lib, kind + "VectorT")()
                vector.values = np.asarray(values, kind.lower())
                setattr(level, name, vector)
                setattr(level, name + "Type", getattr(lib.SparseIndexVector, kind + "Vector"))
        parameters.dimMetadata.append(level)
        entries = parts
    return parameters, np.asarray(entries, dense.dtype)


def densify(dense: np.ndarray, order: list[int], blocks: dict[int, int], listed: set[int]) -> bytes:
    """x + DENSIFY(constant)."""
    parameters, values = sparse(dense, order, blocks, listed)
    writer = Writer("sparse")
    x = writer.tensor("x", dense.shape, np.float32)
    held = writer.tensor("held", dense.shape, np.float32, data=values)
    full, y = (writer.tensor(name, dense.shape, np.float32) for name in ("full", "y"))
    writer._graph.tensors[held].sparsity = parameters
    writer.operator("DENSIFY", 1, [held], full, None, {})
    writer.operator("ADD", 1, [x, full], y, "AddOptions", {})
    return writer.finish([x], [y], {})


@given(st.integers(0, 2**32 - 1))
def test_sparse_constants_are_what_litert_makes_of_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in 2 * rng.integers(1, 4, rng.integers(1, 4)))
    dense = rng.normal(size=shape).astype(np.float32) * (rng.uniform(size=shape) < 0.4)
    dense.flat[0] = 1.0  # a constant without a number is none
    blocks = {a: int(rng.choice([1, 2, n])) for a, n in enumerate(shape) if rng.uniform() < 0.4}
    order = [*rng.permutation(len(shape)).tolist(), *range(len(shape), len(shape) + len(blocks))]
    model = densify(dense, order, blocks, {int(a) for a in order[: len(shape)] if rng.uniform() < 0.5})
    np.testing.assert_array_equal(cast(np.ndarray, unpack(model).tensors[1].data), dense)
    (truth,) = run_raw(model, [np.zeros((1, *shape[1:]) if shape[0] == 1 else shape, np.float32)])
    np.testing.assert_array_equal(truth.reshape(shape), dense)


DAMAGED: dict[str, Callable[[Any], None]] = {
    "an index too large": lambda s: setattr(s.dimMetadata[1].arrayIndices, "values", np.uint8([0, 1, 2, 4])),
    "segments that fall": lambda s: setattr(
        s.dimMetadata[1].arraySegments, "values", np.int32([0, 3, 2, 3, 4])
    ),
    "a segment missing": lambda s: setattr(s.dimMetadata[1].arraySegments, "values", np.int32([0, 1, 2, 4])),
    "no segments": lambda s: setattr(s.dimMetadata[1], "arraySegments", None),
    "an axis twice": lambda s: setattr(s, "traversalOrder", [0, 0]),
    "a block without its axis": lambda s: setattr(s, "blockMap", [7]),
    "blocks out of order": lambda s: setattr(s, "blockMap", [1, 0]),
    "a level missing": lambda s: s.dimMetadata.pop(),
    "a dense level": lambda s: setattr(s.dimMetadata[1], "format", 0),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_sparse_constant_that_does_not_fit_is_refused(damage: str) -> None:
    model = opened(densify(np.eye(4, dtype=np.float32), [0, 1], {}, {1}))
    DAMAGED[damage](next(t.sparsity for t in model.subgraphs[0].tensors if t.sparsity))
    with pytest.raises(
        ValueError, match=r"damaged .tflite: the sparse constant 'held' of 4 numbers does not fit"
    ):
        verify(packed(model))


def test_sparse_constants_cannot_grow_without_end() -> None:
    model = opened(densify(np.eye(4, dtype=np.float32), [0, 1], {}, {1}))
    held, full, *_ = (t for t in model.subgraphs[0].tensors if t.name != b"x")
    held.shape = full.shape = [4, 2**26]
    with pytest.raises(ValueError, match="its tables hold far more than its"):
        verify(packed(model))
