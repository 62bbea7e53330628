"""The integer kernels against LiteRT's reference kernels (0 differing integers) and against numbers by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from research.graph import oracle
from research.graph.oracle_integer import CENTRED, RAW, sigmoid_table
from research.graph.program import LIMITS, Affine, DType, IntegerWeights, Program
from research.graph.runtime import run_raw
from research.graph.tflite import Writer
from research.graph.write import write
from tests.graph.oracle_cases import CASES, DTYPES, KINDS, about, every, form, ints, prelu, single, sizes


def test_every_integer_kernel_has_cases():
    assert set(CASES) >= set(CENTRED) | set(RAW)


@pytest.mark.parametrize("op", ["exp", "tanh"])
@pytest.mark.parametrize("scale", [1e-12, 1e-6, 10.0])
def test_curves_beyond_int32_saturate(op: str, scale: float) -> None:
    x = every("int8")
    program = single({"op": op}, [x.shape], [Affine(0.5, -97, "int8")], Affine(scale, 50, "int8"))
    (ours,), (theirs,) = oracle.run(program, [x]), run_raw(write(program), [x])
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("op", "dtype"), KINDS)
@settings(max_examples=30)
@given(data=st.data())
def test_no_integer_differs_from_litert(op: str, dtype: DType, data: st.DataObject):
    case = CASES[op](data.draw, dtype, op)
    (ours,), (theirs,) = oracle.run(case.program, case.inputs), run_raw(write(case.program), case.inputs)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("op", ["add", "sub", "mul"])
@settings(max_examples=8)
@given(data=st.data())
def test_no_pair_of_integers_differs_from_litert(op: str, data: st.DataObject):
    """All 65536 pairs of int8: ties that random ones seldom meet."""
    formats = [form(data.draw, "int8") for _ in range(2)]
    natural = np.prod([f.scale for f in formats]) * 100 if op == "mul" else max(f.scale for f in formats)
    out = about(data.draw, "int8", natural)
    inputs = [every("int8").reshape(1, 256, 1), every("int8").reshape(1, 1, 256)]
    program = single({"op": op}, [x.shape for x in inputs], formats, out)
    np.testing.assert_array_equal(oracle.run(program, inputs)[0], run_raw(write(program), inputs)[0])


def attempt(program: Program, inputs: list[np.ndarray]) -> np.ndarray | str:
    """The output of the oracle, or what it says instead."""
    try:
        return oracle.run(program, inputs)[0]
    except ValueError as error:
        return str(error)


@settings(max_examples=60)
@given(data=st.data(), exponent=st.integers(-40, 30))
def test_extreme_ratios_of_scales_agree_or_are_refused(data: st.DataObject, exponent: int):
    """Above 2 ** 30 (a 64-bit sum: 2 ** 14) the kernels shift by more than C++ defines."""
    op = data.draw(st.sampled_from(["conv", "depthwise", "mean", "abs", "matmul"]))
    dtype = data.draw(st.sampled_from(DTYPES))
    program, inputs = CASES[op](data.draw, dtype, op)
    scales = dict(program.scales)
    node = program.graph.node_of("y")
    assume(node.activation == "none")  # 6 / scale may not fit an int32 either
    unit = np.prod([scales[n].scale for n in node.inputs])
    unit *= program.integers["y"].scale.max() if "y" in program.integers else 1.0
    scales["y"] = scales["y"]._replace(scale=float(np.float32(unit * 2.0**-exponent)))
    program = Program(program.graph, {}, scales, program.integers)
    ours = attempt(program, inputs)
    if isinstance(ours, str):
        assert "beyond LiteRT's kernels" in ours
        assert exponent >= 13
    else:
        np.testing.assert_array_equal(ours, run_raw(write(program), inputs)[0])


def file_of(code: str, version: int, options: str | None, program: Program) -> bytes:
    """The one node of a program as the operator `code`, for formats that `write` does not mix."""
    writer, graph, node = Writer("test"), program.graph, program.graph.node_of("y")
    place = {}
    for tensor in graph.tensors:
        a, found = program.scales[tensor.name], program.integers.get(tensor.name)
        data, kind = None if found is None else found.kernel, np.dtype(a.dtype).type
        place[tensor.name] = writer.tensor(tensor.name, tensor.shape, kind, a.scale, a.zero_point, data)
    writer.operator(code, version, [place[i] for i in node.inputs], place["y"], options, {})
    return writer.finish([place[i] for i in graph.inputs], [place["y"]], {})


@given(data=st.data())
def test_int16_prelu_has_an_int8_slope(data: st.DataObject):
    program, inputs = prelu(data.draw, "int16", "prelu")
    theirs = run_raw(file_of("PRELU", 1, None, program), inputs)
    np.testing.assert_array_equal(oracle.run(program, inputs)[0], theirs[0])


@given(data=st.data())
def test_int16_matmul_takes_an_int8_right_side(data: st.DataObject):
    m, k, n = (data.draw(sizes) for _ in range(3))
    first, second = form(data.draw, "int16"), form(data.draw, "int8")._replace(zero_point=0)
    out = about(data.draw, "int16", first.scale * second.scale * 999 * k)
    value = ints(data.draw, (k, n), "int8", k)
    program = single({"op": "matmul"}, [(1, m, k), (k, n)], [first, second], out, constants={1: value})
    inputs = [ints(data.draw, (1, m, k), "int16")]
    theirs = run_raw(file_of("BATCH_MATMUL", 4, "BatchMatMulOptions", program), inputs)
    np.testing.assert_array_equal(oracle.run(program, inputs)[0], theirs[0])


def test_a_64_bit_sum_rounds_otherwise_than_a_32_bit_one():
    """6 / 4 is 2 both ways; -6 / 4 is -2 where int32 sums are shifted (away from zero), -1 in 64 bits (upwards)."""
    for kind, expected in ((np.int32, [2, -2]), (np.int64, [2, -1])):
        fields = {"op": "conv", "kernel": "k", "kernel_shape": (1, 1, 1, 1), "bias": "b"}
        weights = IntegerWeights(np.ones((1, 1, 1, 1), np.int8), np.ones(1, np.float32), np.zeros(1, kind))
        formats = Affine(1.0, 0, "int16"), Affine(4.0, 0, "int16")
        program = single(fields, [(1, 1, 1, 1)], [formats[0]], formats[1], (), weights)
        x = np.array([6, -6], np.int16).reshape(2, 1, 1, 1)
        assert oracle.run(program, [x])[0].ravel().tolist() == expected
        assert run_raw(write(program), [x])[0].ravel().tolist() == expected


@pytest.mark.parametrize(("op", "layout"), [("dense", (1, 1)), ("conv", (1, 1, 1, 1))])
def test_a_32_bit_sum_wraps(op: str, layout: tuple[int, ...]):
    """127 more than the highest int32 is 126 above the lowest; a 64-bit sum of the same saturates at the top."""
    shape = (1,) * len(layout)
    for kind, expected in ((np.int32, -32768), (np.int64, 32767)):
        bias = np.array([2**31 - 1], kind)
        weights = IntegerWeights(np.full(layout, 127, np.int8), np.ones(1, np.float32), bias)
        fields = {"op": op, "kernel": "k", "kernel_shape": layout, "bias": "b"}
        formats = Affine(1.0, 0, "int16"), Affine(4.0, 0, "int16")
        program = single(fields, [shape], [formats[0]], formats[1], (), weights)
        x = np.ones(shape, np.int16)
        assert oracle.run(program, [x])[0].item() == expected
        assert run_raw(write(program), [x])[0].item() == expected


def test_a_dense_layer_rounds_once_where_a_conv_rounds_twice():
    """(2 ** 23 - 1) / 2 ** 24 is less than 1/2; its half, rounded, is 2 ** 22, and over 2 ** 23 that is 1/2."""
    for op, layout, shape, expected in (("dense", (1, 1), (1, 1), 0), ("conv", (1,) * 4, (1,) * 4, 1)):
        bias = np.array([2**23 - 1], np.int32)
        weights = IntegerWeights(np.ones(layout, np.int8), np.ones(1, np.float32), bias)
        fields = {"op": op, "kernel": "k", "kernel_shape": layout, "bias": "b"}
        program = single(fields, [shape], [Affine(1.0, 0)], Affine(2.0**24, 0), (), weights)
        x = np.zeros(shape, np.int8)
        assert oracle.run(program, [x])[0].item() == expected
        assert run_raw(write(program), [x])[0].item() == expected


def test_average_of_a_window_rounds_halves_away_from_zero_and_counts_what_is_inside():
    x = np.array([[1, 2], [-1, -2]], np.int8).reshape(1, 2, 2, 1)
    fields = {"op": "avg_pool", "window": (1, 2), "padding": "SAME"}
    program = single(fields, [(1, 2, 2, 1)], [Affine(1.0, 0)], Affine(1.0, 0))
    assert oracle.run(program, [x])[0].reshape(2, 2).tolist() == [[2, 2], [-2, -2]]


def test_sigmoid_table_is_the_sigmoid_within_one_and_a_half_steps():
    exact = 65536 / (1 + np.exp(-np.arange(256) / 24))
    table = sigmoid_table()
    assert table[0] == 32768
    assert table[-1] == 65535
    assert (table - exact >= -0.51).all()
    assert (table - exact <= 1.2).all()


def refusal(program: Program, inputs: list[np.ndarray]) -> str:
    with pytest.raises(ValueError, match="'y'") as caught:
        oracle.run(program, inputs)
    return str(caught.value)


@pytest.mark.parametrize(
    ("fields", "dtype", "out", "told"),
    [
        ({"op": "hard_swish"}, "int16", Affine(1.0, 0, "int16"), "no hard_swish from int16"),
        ({"op": "hard_swish"}, "int8", Affine(0.001, 0), "at least 1/128"),
        ({"op": "depth_to_space", "window": (1, 1)}, "int16", Affine(1.0, 0, "int16"), "no depth_to_space"),
        ({"op": "square"}, "int8", Affine(1.0, 0), "no square from int8"),
        ({"op": "clamp", "bounds": (-1.0, 1.0)}, "int16", Affine(1.0, 0, "int16"), "no clamp to"),
        ({"op": "clamp", "bounds": (0.0, 1.0)}, "int8", Affine(1.0, 0), "no clamp to"),
        ({"op": "logistic"}, "int8", Affine(0.5, 0), "1/256"),
        ({"op": "logistic"}, "int16", Affine(0.5, 0, "int16"), "1/32768"),
        ({"op": "tanh"}, "int16", Affine(0.5, 0, "int16"), "1/32768"),
        ({"op": "softmax", "alpha": 1.0}, "int8", Affine(1 / 256, 0), "zero point -128"),
        ({"op": "sqrt"}, "int8", Affine(1.0, 0), "negative"),
        ({"op": "neg"}, "uint8", Affine(1.0, 0, "uint8"), "no neg from uint8"),
    ],
)
def test_what_litert_refuses_is_refused_by_name(fields: dict[str, Any], dtype: DType, out: Affine, told: str):
    x = np.full((1, 2, 2, 1), LIMITS[dtype][0]).astype(dtype)
    assert told in refusal(single(fields, [x.shape], [Affine(1.0, 0, dtype)], out), [x])


def test_what_would_abort_litert_is_refused():
    """A CHECK of the kernel ends the process: an output scale too fine for an add, 512 equal softmax inputs."""
    x, unit = np.zeros((1, 2), np.int8), Affine(1.0, 0)
    told = refusal(single({"op": "add"}, [x.shape] * 2, [unit] * 2, Affine(2.0**-20, 0)), [x, x])
    assert "output scale above" in told
    x, shares = np.zeros((1, 512), np.int8), Affine(1 / 256, -128)
    told = refusal(single({"op": "softmax", "alpha": 1.0}, [x.shape], [unit], shares), [x])
    assert "512" in told


def test_a_bias_of_the_wrong_kind_is_refused():
    fields = {"op": "depthwise", "kernel": "k", "kernel_shape": (1, 1, 1, 1), "bias": "b"}
    for dtype, kind in (("int8", np.int64), ("int16", np.int32)):
        weights = IntegerWeights(np.ones((1, 1, 1, 1), np.int8), np.ones(1, np.float32), np.zeros(1, kind))
        a = Affine(1.0, 0, dtype)
        program = single(fields, [(1, 1, 1, 1)], [a], a, (), weights)
        assert np.dtype(kind).name in refusal(program, [np.zeros((1, 1, 1, 1), dtype)])


def test_a_resize_that_reads_past_the_image_is_refused():
    program = single(
        {"op": "resize", "mode": "bilinear"}, [(1, 4, 1, 1)], [Affine(1.0, 0)], Affine(1.0, 0), (1, 351, 1, 1)
    )
    assert "reads beyond 4 pixels" in refusal(program, [np.zeros((1, 4, 1, 1), np.int8)])
