"""Operators that our own writer does not use: what is read means what LiteRT computes; the rest is refused by name."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.graph.oracle import run
from research.graph.read import read
from research.graph.runtime import run_raw
from research.graph.tflite import Writer, schema

Shape = tuple[int, ...]
STEP, ZERO = 0.03, 5  # of every int8 tensor here


def single(
    code: str, inputs: Sequence[Shape | np.ndarray], outputs: Sequence[Shape], options: str | None = None,
    fields: Mapping[str, Any] | None = None, dtype: str = "float32",
) -> bytes:  # fmt: skip
    """A file of one operator. inputs: shapes of what the network reads, arrays for constants."""
    writer, kind = Writer(code), np.dtype(dtype).type
    scale = None if dtype == "float32" else (STEP if dtype != "int16" else 0.001)
    zero = ZERO if dtype in ("int8", "uint8") else 0
    sources, ends = [], []
    for number, given_ in enumerate(inputs):
        if isinstance(given_, tuple):
            sources.append(writer.tensor(f"x{number}", given_, kind, scale, zero))
            ends.append(sources[-1])
        else:
            plain = given_.dtype.name in ("int32", "int64") or scale is None
            held = None if plain else scale
            sources.append(
                writer.tensor(
                    f"c{number}", given_.shape, given_.dtype.type, held, 0 if plain else zero, given_
                )
            )
    made = [writer.tensor(f"y{number}", shape, kind, scale, zero) for number, shape in enumerate(outputs)]
    writer.operator(code, 1, sources, made[0], options and f"{options}Options", dict(fields or {}))
    writer._graph.operators[-1].outputs = made
    return writer.finish(ends, made, {})


def agreed(model: bytes, seed: int = 0) -> list[str]:
    """The operations the file is read as, after every output was seen to be LiteRT's."""
    program, rng = read(model), np.random.default_rng(seed)
    graph, images = program.graph, []
    for name in graph.inputs:
        shape, dtype = graph.shape(name), program.dtype(name)
        whole = rng.integers(-100, 100, shape) if dtype != "float32" else rng.normal(size=shape)
        images.append(whole.astype(dtype))
    for ours, truth in zip(run(program, images), run_raw(model, images), strict=True):
        assert (ours.shape, ours.dtype) == (truth.shape, truth.dtype)
        np.testing.assert_allclose(ours, truth, rtol=1e-5, atol=1e-6 if ours.dtype == np.float32 else 0)
    return [n.op for n in graph.nodes]


def i32(*numbers: Any) -> np.ndarray:
    return np.asarray(numbers, np.int32)


IMAGE = (1, 4, 6, 3)
DENSE, UPSCALE, SPREAD = "FullyConnected", "ResizeBilinear", "TransposeConv"
KERNEL = np.linspace(-1, 1, 5 * 72, dtype=np.float32).reshape(5, 72)
BIAS = np.linspace(-1, 1, 5, dtype=np.float32)
MOVES: dict[str, tuple[Any, ...]] = {
    "squeeze": ("SQUEEZE", [(1, 1, 6, 3)], [(1, 6, 3)], "Squeeze", {"squeezeDims": [1]}),
    "expand": ("EXPAND_DIMS", [(1, 6, 3), i32(2)], [(1, 6, 1, 3)]),
    "pack": ("PACK", [(1, 6), (1, 6)], [(1, 2, 6)], "Pack", {"valuesCount": 2, "axis": 1}),
    "pack_last": ("PACK", [(1, 6), (1, 6)], [(1, 6, 2)], "Pack", {"valuesCount": 2, "axis": -1}),
    "unpack": ("UNPACK", [(1, 3, 6)], [(1, 6)] * 3, "Unpack", {"num": 3, "axis": 1}),
    "unpack_first": ("UNPACK", [(3, 6)], [(6,)] * 3, "Unpack", {"num": 3, "axis": 0}),
    "split": ("SPLIT", [i32(3), (1, 4, 6, 4)], [(1, 4, 6, 2)] * 2, "Split", {"numSplits": 2}),
    "split_back": ("SPLIT", [i32(-2), IMAGE], [(1, 4, 2, 3)] * 3, "Split", {"numSplits": 3}),
    "split_sizes": ("SPLIT_V", [IMAGE, i32(1, 5), i32(2)], [(1, 4, 1, 3), (1, 4, 5, 3)], "SplitV", {"numSplits": 2}),
    "slice": ("SLICE", [IMAGE, i32(0, 1, 2, 0), i32(1, 2, -1, 3)], [(1, 2, 4, 3)]),
    "gather_one": ("GATHER", [IMAGE, np.int32(2).reshape(())], [(1, 6, 3)], "Gather", {"axis": 1}),
    "gather_even": ("GATHER", [IMAGE, i32(5, 3, 1)], [(1, 4, 3, 3)], "Gather", {"axis": 2}),
    "gather_row": ("GATHER", [(2, 1, 6), np.int32(0).reshape(())], [(1, 6)], "Gather", {"axis": 0}),
    "space_to_depth": ("SPACE_TO_DEPTH", [IMAGE], [(1, 2, 3, 12)], "SpaceToDepth", {"blockSize": 2}),
    "reduce_max": ("REDUCE_MAX", [IMAGE, i32(1, 2)], [(1, 3)], "Reducer", {"keepDims": False}),
    "reduce_max_kept": ("REDUCE_MAX", [IMAGE, i32(-2, 1)], [(1, 1, 1, 3)], "Reducer", {"keepDims": True}),
}  # fmt: skip
FLOATS: dict[str, tuple[Any, ...]] = {
    "sum": ("SUM", [IMAGE, i32(1, 2)], [(1, 3)], "Reducer", {"keepDims": False}),
    "sum_kept": ("SUM", [IMAGE, i32(3)], [(1, 4, 6, 1)], "Reducer", {"keepDims": True}),
    "squared_difference": ("SQUARED_DIFFERENCE", [IMAGE, IMAGE], [IMAGE]),
    "squared_difference_across": ("SQUARED_DIFFERENCE", [IMAGE, (1, 4, 6, 1)], [IMAGE]),
    "relu_0_to_1": ("RELU_0_TO_1", [IMAGE], [IMAGE]),
    "matmul_adjoint": ("BATCH_MATMUL", [(1, 4, 3), (1, 5, 4)], [(1, 3, 5)], "BatchMatMul", {"adjX": 1, "adjY": 1}),
    "dense_of_image": ("FULLY_CONNECTED", [IMAGE, KERNEL, BIAS], [(1, 5)], DENSE),
    "dense_flattened": ("FULLY_CONNECTED", [(1, 2, 72), KERNEL, BIAS], [(2, 5)], DENSE),
    "dense_without_bias": ("FULLY_CONNECTED", [(1, 72), KERNEL], [(1, 5)], DENSE),
    "constant_transposed": ("TRANSPOSE", [np.arange(6, dtype=np.float32).reshape(2, 3), i32(1, 0)], [(3, 2)]),
    "constant_reshaped": ("RESHAPE", [np.arange(6, dtype=np.float32), i32(2, 3)], [(2, 3)]),
    "leaky_relu": ("LEAKY_RELU", [IMAGE], [IMAGE], "LeakyRelu", {"alpha": 0.3}),
    "softmax": ("SOFTMAX", [(1, 9)], [(1, 9)], "Softmax", {"beta": 0.7}),
    "pad_minus_infinity": ("PADV2", [(1, 2, 3), i32([0, 0], [1, 1], [0, 2]), np.float32([-np.inf])], [(1, 4, 5)]),
}  # fmt: skip


@pytest.mark.parametrize("name", [*MOVES, *FLOATS])
def test_it_means_what_litert_computes(name: str) -> None:
    agreed(single(*(MOVES | FLOATS)[name]))


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("name", MOVES)
def test_numbers_are_moved_in_any_format(name: str, dtype: str) -> None:
    if (name, dtype) in (("space_to_depth", "int16"), ("reduce_max_kept", "int16")):
        assert (
            read(single(*MOVES[name], *[None] * (5 - len(MOVES[name])), dtype=dtype)).scales["y0"].dtype
            == dtype
        )
        return  # LiteRT has no such kernel
    agreed(single(*MOVES[name], *[None] * (5 - len(MOVES[name])), dtype=dtype))


masks = st.integers(0, 15)
entries = st.tuples(st.integers(-7, 7), st.integers(-7, 7), st.sampled_from([1, 1, 2, -1, -2]))


@given(st.lists(entries, min_size=1, max_size=4), masks, masks, masks, masks, masks, st.booleans())
def test_strided_slices_are_those_of_numpy(
    given_: list[tuple[int, int, int]],
    begin: int,
    end: int,
    ellipsis: int,
    new: int,
    shrink: int,
    batch: bool,
) -> None:
    """Wherever numpy's indexing has an answer of at least one number."""
    x, index = np.arange(72, dtype=np.float32).reshape((1, 4, 6, 3) if batch else (2, 4, 3, 3)), list[Any]()
    ellipsis &= -ellipsis  # one at most
    for i, (low, high, step) in enumerate(given_):
        plain = slice(None if begin >> i & 1 else low, None if end >> i & 1 else high, step)
        found = low if shrink >> i & 1 else plain
        index.append(... if ellipsis >> i & 1 else None if new >> i & 1 else found)
    try:
        wanted = x[tuple(index)]
    except IndexError:
        return
    if wanted.size == 0 or wanted.ndim > 5:
        return
    lows, highs, steps = (i32(*column) for column in zip(*given_, strict=True))
    steps = np.where([shrink >> i & 1 for i in range(len(steps))], 1, steps).astype(np.int32)
    fields = dict(zip(("beginMask", "endMask", "ellipsisMask", "newAxisMask", "shrinkAxisMask"),
                      (begin, end, ellipsis, new, shrink), strict=True))  # fmt: skip
    model = single("STRIDED_SLICE", [x.shape, lows, highs, steps], [wanted.shape], "StridedSlice", fields)
    np.testing.assert_array_equal(run(read(model), [x])[0], wanted)


def test_a_slice_may_say_how_long_it_is() -> None:
    fields = {"offset": True}
    model = single(
        "STRIDED_SLICE", [(1, 8), i32(0, 3), i32(1, 2), i32(1, 1)], [(1, 2)], "StridedSlice", fields
    )
    assert agreed(model) == ["slice"]


def test_sizes_that_are_computed_are_those_the_file_records() -> None:
    """Flatten as converters write it: SHAPE, STRIDED_SLICE, PACK, RESHAPE."""
    writer = Writer("flatten")
    x, y = writer.tensor("x", (1, 4, 6), np.float32), writer.tensor("y", (1, 24), np.float32)
    shape, rows, target = (writer.tensor(n, s, np.int32) for n, s in (("s", (3,)), ("r", ()), ("t", (2,))))
    ones = [writer.tensor(f"i{n}", (1,), np.int32, data=i32(n)) for n in (0, 1)]
    rest = writer.tensor("rest", (), np.int32, data=np.int32(24))
    writer.operator("SHAPE", 1, [x], shape, "ShapeOptions", {"outType": schema().TensorType.INT32})
    writer.operator(
        "STRIDED_SLICE", 1, [shape, *ones, ones[1]], rows, "StridedSliceOptions", {"shrinkAxisMask": 1}
    )
    writer.operator("PACK", 1, [rows, rest], target, "PackOptions", {"valuesCount": 2})
    writer.operator("RESHAPE", 1, [x, target], y, None, {})
    assert agreed(writer.finish([x], [y], {})) == ["reshape"]


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_mediapipes_transposed_convolution(padding: str) -> None:
    """Against TRANSPOSE_CONV, whose meaning it has; LiteRT's reference kernels do not know it."""
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(5, 2, 2, 3)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    x, out = rng.normal(size=IMAGE).astype(np.float32), (1, 8, 12, 5)
    plain = {"padding": getattr(schema().Padding, padding), "strideW": 2, "strideH": 2}
    known = single("TRANSPOSE_CONV", [i32(*out), kernel, IMAGE, bias], [out], "TransposeConv", plain)
    model = custom(
        "Convolution2DTransposeBias", struct.pack("<3i", 1 + plain["padding"], 2, 2), [kernel, bias], out
    )
    np.testing.assert_array_equal(run(read(model), [x])[0], run(read(known), [x])[0])


def custom(code: str, options: bytes, constants: Sequence[np.ndarray], out: Shape) -> bytes:
    writer = Writer("custom")
    x, y = writer.tensor("x", IMAGE, np.float32), writer.tensor("y", out, np.float32)
    held = [writer.tensor(f"c{i}", c.shape, np.float32, data=c) for i, c in enumerate(constants)]
    writer.operator("CUSTOM", 1, [x, *held], y, None, {})
    writer._model.operatorCodes[-1].customCode = code
    writer._graph.operators[-1].customOptions = np.frombuffer(options, np.uint8)
    return writer.finish([x], [y], {})


PADS = i32([0, 0], [1, 1], [1, 1], [0, 0])
CONV = np.ones((2, 3, 3, 3), np.float32)
UNIT = {"strideW": 1, "strideH": 1}
BOTH = {"alignCorners": True, "halfPixelCenters": True}
REFUSED: dict[str, tuple[Any, ...]] = {
    "MIRROR_PAD makes 'y0'.* no such operation": ("MIRROR_PAD", [IMAGE, PADS], [(1, 6, 8, 3)]),
    "L2_NORMALIZATION makes 'y0'.* no such operation": ("L2_NORMALIZATION", [IMAGE], [IMAGE]),
    "fused activation 4; only none": ("ADD", [IMAGE, IMAGE], [IMAGE], "Add", {"fusedActivationFunction": 4}),
    "window .3, 3., strides .0, 0.": ("CONV_2D", [IMAGE, CONV], [(1, 4, 6, 2)], "Conv2D"),
    "far larger than": ("CONV_2D", [IMAGE, CONV], [(1, 4, 6, 2)], "Conv2D", {**UNIT, "dilationWFactor": 9999}),
    "padding 7, neither SAME nor VALID": ("CONV_2D", [IMAGE, CONV], [(1, 4, 6, 2)], "Conv2D", {**UNIT, "padding": 7}),
    "it makes .1, 2, 4, 2., the file": ("CONV_2D", [IMAGE, CONV], [(1, 4, 6, 2)], "Conv2D", {**UNIT, "padding": 1}),
    "bias has 3 numbers for 2 channels": ("CONV_2D", [IMAGE, CONV, BIAS[:3]], [(1, 4, 6, 2)], "Conv2D", UNIT),
    r"its window \(72,\), strides": ("CONV_2D", [IMAGE, KERNEL], [(1, 4, 6, 2)], "Conv2D", UNIT),
    "'x1' is computed while the network runs": ("CONV_2D", [IMAGE, (2, 3, 3, 3)], [(1, 4, 6, 2)], "Conv2D", UNIT),
    "it has no input 1": ("CONV_2D", [IMAGE], [IMAGE], "Conv2D", UNIT),
    "not finite": ("CONV_2D", [IMAGE, CONV * np.nan], [(1, 4, 6, 2)], "Conv2D", UNIT),
    "options is not finite": ("SOFTMAX", [(1, 9)], [(1, 9)], "Softmax", {"beta": np.inf}),
    "or are shuffled": ("FULLY_CONNECTED", [IMAGE, KERNEL], [(1, 5)], DENSE, {"weightsFormat": 1}),
    r"weights \(5, 70\) do not fit": ("FULLY_CONNECTED", [IMAGE, KERNEL[:, :70]], [(1, 5)], DENSE),
    r"its axes \(4,\) are not those": ("CONCATENATION", [IMAGE, IMAGE], [IMAGE], "Concatenation", {"axis": 4}),
    r"its axes \(1, -3\) are not those": ("MEAN", [IMAGE, i32(1, -3)], [(1, 6, 3)], "Reducer"),
    "it does not reduce": ("MEAN", [IMAGE, i32(1, 2)], [(1, 6, 3)], "Reducer"),
    "maximum over rows and columns": ("REDUCE_MAX", [IMAGE, i32(3)], [(1, 4, 6)], "Reducer"),
    "not a few whole numbers": ("MEAN", [IMAGE, BIAS[:1]], [(1, 6, 3)], "Reducer"),
    "evenly spaced": ("GATHER", [IMAGE, i32(0, 1, 3)], [(1, 3, 6, 3)], "Gather", {"axis": 1}),
    "2 of 3 entries along axis 3": ("SPLIT", [i32(3), IMAGE], [(1, 4, 6, 1)] * 2, "Split", {"numSplits": 2}),
    "entries along axis 1": ("UNPACK", [(1, 3, 6)], [(1, 6)] * 2, "Unpack", {"num": 2, "axis": 1}),
    "cannot cut": ("SLICE", [IMAGE, i32(0, 3, 0, 0), i32(1, 2, 6, 3)], [(1, 2, 6, 3)]),
    "both align_corners and half": ("RESIZE_BILINEAR", [IMAGE, i32(8, 8)], [(1, 8, 8, 3)], UPSCALE, BOTH),
    "another size than": ("RESIZE_BILINEAR", [IMAGE, i32(9, 8)], [(1, 8, 8, 3)], UPSCALE),
    "does not make": ("TRANSPOSE_CONV", [i32(1, 9, 13, 2), CONV, IMAGE], [(1, 9, 13, 2)], SPREAD, UNIT),
    "it makes .1, 4, 6, 9., the": ("TRANSPOSE_CONV", [i32(1, 4, 6, 9), CONV, IMAGE], [(1, 4, 6, 2)], SPREAD, UNIT),
    "blocks of 0 do not fit": ("DEPTH_TO_SPACE", [(1, 2, 2, 4)], [(1, 4, 4, 1)], "DepthToSpace"),
    "differ in size": ("RESHAPE", [IMAGE, i32(1, 3)], [(1, 3)]),
    r"pads \(\(0, 0\), \(1, 1\)\) do not fit": ("PAD", [IMAGE, PADS[:2]], [IMAGE]),
    "says 2": ("RELU", [IMAGE], [IMAGE, IMAGE]),
    "makes 2 tensors, the file says 1|of 3 entries": ("UNPACK", [(1, 3, 6)], [(1, 6)], "Unpack", {"num": 3, "axis": 1}),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_the_rest_is_refused_with_its_name(message: str) -> None:
    with pytest.raises(ValueError, match=f"^operator 0 of the .tflite file .*{message}") as caught:
        read(single(*REFUSED[message]))
    assert "\n" not in str(caught.value)


def test_unknown_custom_operators_are_named() -> None:
    for code, options in (("TFLite_Detection_PostProcess", b""), ("Convolution2DTransposeBias", b"short")):
        with pytest.raises(ValueError, match=f"the custom operator {code!r} is not known"):
            read(custom(code, options, [CONV], IMAGE))


@pytest.mark.parametrize("code", ["SUM", "SQUARED_DIFFERENCE"])
def test_what_is_float_only_is_not_read_in_integers(code: str) -> None:
    given_ = [IMAGE, i32(3)] if code == "SUM" else [IMAGE, IMAGE]
    out = (1, 4, 6, 1) if code == "SUM" else IMAGE
    with pytest.raises(ValueError, match="only its float kernel is read"):
        read(single(code, given_, [out], "Reducer" if code == "SUM" else None, dtype="int8"))


@pytest.mark.parametrize("pot", [True, False])
def test_int16_sums_in_powers_of_two_are_refused(pot: bool) -> None:
    model = single("ADD", [IMAGE, IMAGE], [IMAGE], "Add", {"potScaleInt16": pot}, "int16")
    parsed = schema().ModelT.InitFromPackedBuf(bytearray(model), 0)
    assert agreed(model) == ["add"]  # scales of 0.001
    import flatbuffers

    for tensor in parsed.subgraphs[0].tensors:
        tensor.quantization.scale = [2.0**-10]
    builder = flatbuffers.Builder(1 << 10)
    builder.Finish(parsed.Pack(builder), b"TFL3")
    if pot:
        with pytest.raises(ValueError, match="scales are powers of two"):
            read(bytes(builder.Output()))
    else:
        assert agreed(bytes(builder.Output())) == ["add"]


def test_uint8_networks_get_one_clear_error() -> None:
    with pytest.raises(ValueError, match=r"operator 0 .* computes in uint8, the old quantisation; convert"):
        read(single("ADD", [IMAGE, IMAGE], [IMAGE], "Add", dtype="uint8"))
