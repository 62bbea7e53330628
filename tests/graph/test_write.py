"""Every operation in every number format: the file runs in LiteRT and means what the graph means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.graph.ir import Graph, Node, Tensor
from research.graph.operators import TYPES, VERSIONS, operator_code
from research.graph.program import Affine, IntegerWeights, Program
from research.graph.runtime import run_raw
from research.graph.tflite import read_metadata
from research.graph.write import file_layout, write
from tests.graph.cases import CASES, Case, in_integers, layer, program_of, real_values, steps_apart

# Error in steps of the output where it is not the rounding of one number (0.5 plus float32's own): two roundings,
# a 15-bit multiplier, truncation, or a table with straight lines between its entries.
STEPS = {"int8": 0.6, "int16": 1.5} | {
    ("int8", "mean_channels"): 1, ("int8", "leaky_relu"): 1, ("int8", "sqrt"): 1, ("int8", "resize_bilinear"): 1.1,
    ("int16", "tanh"): 2.5, ("int16", "exp"): 5, ("int16", "rsqrt"): 100, ("int16", "resize_bilinear"): 160,
}  # fmt: skip


def version(case: str, dtype: str) -> int:
    program, _ = program_of(CASES[case])
    return VERSIONS[operator_code(program, program.graph.nodes[-1])][TYPES.index(dtype)]


@pytest.mark.parametrize("name", CASES)
def test_every_operation_in_float(name: str) -> None:
    program, inputs = program_of(CASES[name])
    wanted, model = real_values(program, inputs)["y"], write(program)
    for reference in (True, False):
        (got,) = run_raw(model, [inputs[n] for n in program.graph.inputs], reference=reference)
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("name", CASES)
def test_every_operation_in_integers(name: str, dtype: str) -> None:
    program, inputs = program_of(CASES[name])
    integer = in_integers(program, real_values(program, inputs), dtype)
    if not version(name, dtype):
        with pytest.raises(ValueError, match=f"LiteRT has no {dtype} kernel"):
            write(integer)
        return
    for reference in (True, False):
        assert steps_apart(integer, inputs, reference) <= STEPS.get((dtype, name), STEPS[dtype])


@pytest.mark.parametrize("per_tensor", [True, False])
@pytest.mark.parametrize("bias", ["int32", "int64"])
@pytest.mark.parametrize(
    "name", ["conv", "conv_grouped", "transpose_conv", "dense", "dense_rows", "depthwise"]
)
def test_scales_of_any_length_and_both_accumulators(name: str, bias: str, per_tensor: bool) -> None:
    program, inputs = program_of(CASES[name])
    values = real_values(program, inputs)
    wide = in_integers(program, values, "int16", bias, per_tensor)
    if (name, bias) == ("depthwise", "int32"):
        with pytest.raises(
            ValueError, match=r"'y' \(depthwise, int16\) has an int32 bias; LiteRT takes int64"
        ):
            write(wide)
        return
    assert steps_apart(wide, inputs, True) <= (0.6 if bias == "int32" else 1.5)
    narrow = in_integers(program, values, "int8", bias, per_tensor)
    if bias == "int64":
        with pytest.raises(ValueError, match=r"int8\) has an int64 bias; LiteRT takes int32"):
            write(narrow)
        return
    assert steps_apart(narrow, inputs, True) <= 0.6


def test_an_int32_bias_makes_the_runtime_sum_in_int32() -> None:
    node = Node("dense", ("x0",), "y", kernel="w/kernel", kernel_shape=(1200, 1), bias="w/bias")
    graph = Graph((node,), (Tensor("x0", (1, 1200)), Tensor("y", (1, 1))), ("x0",), ("y",))
    scales = {"x0": Affine(1e-3, 0, "int16"), "y": Affine(2.0, 0, "int16")}
    x, kernel = np.full((1, 1200), 32767, np.int16), np.full((1200, 1), 127, np.int8)
    results = []
    for dtype in (np.int32, np.int64):
        weights = IntegerWeights(kernel, np.full(1, 0.01, np.float32), np.zeros(1, dtype))
        results.append(int(run_raw(write(Program(graph, {}, scales, {"y": weights})), [x])[0][0, 0]))
    total = 32767 * 127 * 1200
    wrapped = (total + 2**31) % 2**32 - 2**31
    assert [abs(r - t * 1e-5 / 2) < 2 for r, t in zip(results, (wrapped, total), strict=True)] == [True, True]


@st.composite
def windows(draw: st.DrawFn) -> Case:
    size = draw(st.tuples(st.integers(3, 9), st.integers(3, 9)))
    window = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    strides = draw(st.sampled_from([(1, 1), (2, 2), (1, 2), (3, 1)]))
    op = draw(st.sampled_from(["conv", "depthwise", "avg_pool", "max_pool", "transpose_conv", "resize"]))
    shapes, more = ((1, *size, 2),), {"strides": strides, "padding": draw(st.sampled_from(["SAME", "VALID"]))}
    if op.endswith("pool"):
        return Case({"op": op, "window": window} | more, shapes)
    if op == "resize":
        how = draw(st.sampled_from(["bilinear", "nearest"]))
        mode = how + draw(st.sampled_from(["", "/half_pixel", "/align_corners"]))
        out = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
        return Case({"op": op, "mode": mode}, shapes, recorded=(1, *out, 2))
    if op == "transpose_conv":
        least = zip(size, strides, window, [more["padding"] == "SAME"] * 2, strict=True)
        made = [n * s if same else (n - 1) * s + max(k, s) for n, s, k, same in least]
        return Case(layer(op, (*window, 2, 3)) | more, shapes, recorded=(1, *made, 3))
    if strides == (1, 1) and min(size) > 4 and max(window) < 3 and draw(st.booleans()):
        more["dilation"] = (2, 2)
    wide = (2, draw(st.integers(1, 3))) if op == "conv" else (1, 2 * draw(st.integers(1, 3)))
    return Case(layer(op, (*window, *wide)) | more, shapes)


@settings(max_examples=40)
@given(windows())
def test_windows_of_every_form(case: Case) -> None:
    program, inputs = program_of(case)
    values = real_values(program, inputs)
    (got,) = run_raw(write(program), [inputs["x0"]])
    np.testing.assert_allclose(got, values["y"], rtol=1e-4, atol=1e-5)
    assert steps_apart(in_integers(program, values, "int8"), inputs, True) <= 1.1


FORMATS = {
    "float32": None, "int8": Affine(0.03, 5), "uint8": Affine(0.015, 100, "uint8"),
    "int16": Affine(1e-4, 0, "int16"), "int8 finer": Affine(0.02, -7), "int16 finer": Affine(7e-5, 0, "int16"),
}  # fmt: skip


@pytest.mark.parametrize("into", FORMATS)
@pytest.mark.parametrize("start", FORMATS)
def test_quantize_between_any_two_formats(start: str, into: str) -> None:
    graph = Graph(
        (Node("quantize", ("x",), "y"),), (Tensor("x", (1, 9)), Tensor("y", (1, 9))), ("x",), ("y",)
    )
    scales = {n: f for n, f in (("x", FORMATS[start]), ("y", FORMATS[into])) if f is not None}
    program = Program(graph, {}, scales)
    if (program.dtype("x"), program.dtype("y")) in (("float32", "float32"), ("int16", "uint8")):
        with pytest.raises(ValueError, match=f"'y': LiteRT does not convert {program.dtype('x')} to"):
            write(program)
        return
    real = np.random.default_rng(0).uniform(-3, 3, (4, 9)).astype(np.float32)
    x = real if "x" not in scales else scales["x"].quantise(real)
    real = real if "x" not in scales else scales["x"].real(x)
    for reference in (True, False):
        (got,) = run_raw(write(program), [x], reference=reference)
        wanted = real if "y" not in scales else scales["y"].quantise(real)
        assert np.abs(got.astype(np.float64) - wanted).max() <= (1 if "y" in scales else 1e-6)


def test_one_network_of_every_format_with_several_ends() -> None:
    weights = {"k": np.float32([[1, -1], [0.5, 2]]), "c": np.float32([0.5, -0.5])}
    nodes = (
        Node("constant", (), "c", kernel="c", kernel_shape=(2,)),
        Node("quantize", ("a",), "a8"),
        Node("dense", ("a8",), "d8", kernel="k", kernel_shape=(2, 2)),
        Node("quantize", ("d8",), "d16"),
        Node("add", ("d16", "b16"), "s16", activation="relu"),
        Node("quantize", ("s16",), "s"),
        Node("mul", ("s", "c"), "out"),
    )
    names = ("c", "a", "a8", "d8", "d16", "b16", "s16", "s", "out")
    tensors = tuple(Tensor(n, (2,) if n == "c" else (1, 2)) for n in names)
    graph = Graph(nodes, tensors, ("b16", "a"), ("out", "d8"))
    scales: dict[str, Affine] = {"a8": Affine(0.02, 0), "d8": Affine(0.05, -10)}
    scales |= {n: Affine(2e-4, 0, "int16") for n in ("d16", "b16", "s16")}
    integers = IntegerWeights(
        np.int8([[64, -64], [32, 127]]), np.full(1, 1 / 64, np.float32), np.zeros(2, np.int32)
    )
    model = write(Program(graph, weights, scales, {"d8": integers}))
    a, b = np.random.default_rng(1).uniform(-1, 1, (2, 5, 2)).astype(np.float32)
    out, dense = run_raw(model, [scales["b16"].quantise(b), a])
    wanted = a @ np.float32([[1, -1], [0.5, 127 / 64]])
    assert (out.dtype, dense.dtype, out.shape) == (np.float32, np.int8, (5, 2))
    np.testing.assert_allclose(scales["d8"].real(dense), wanted, atol=0.06)
    np.testing.assert_allclose(out, np.maximum(wanted + b, 0) * weights["c"][None, :], atol=0.04)


@given(st.floats(-3, 1.5), st.floats(0, 3), st.sampled_from(["both", "low", "high", "none"]))
def test_a_clamp_to_any_bounds_in_float(low: float, width: float, sides: str) -> None:
    low, high = float(np.float32(low)), float(np.float32(low + width))
    bounds = (low if sides in ("both", "low") else -np.inf, high if sides in ("both", "high") else np.inf)
    program, inputs = program_of(Case({"op": "clamp", "bounds": bounds}))
    (got,) = run_raw(write(program), [inputs["x0"]])
    np.testing.assert_array_equal(got, np.clip(inputs["x0"], *bounds))
    integer = in_integers(program, real_values(program, inputs), "int8")
    if bounds not in ((0, np.inf), (0, 6), (-1, 1)):
        with pytest.raises(ValueError, match="in integers TFLite has only relu, relu6, relu_n1_to_1"):
            write(integer)


def test_the_same_program_gives_the_same_bytes_and_keeps_its_metadata() -> None:
    program, inputs = program_of(CASES["conv"])
    integer = in_integers(program, real_values(program, inputs), "int8")
    model = write(integer, {"b": "2", "a": "1"})
    turned = replace(integer, params=dict(reversed(program.params.items())))
    assert write(turned, {"a": "1", "b": "2"}) == model
    assert read_metadata(model) == {"a": "1", "b": "2"}
    assert write(integer, {"a": "2", "b": "2"}) != model
    finer = integer.scales | {"y": integer.scales["y"]._replace(scale=0.5)}
    assert write(replace(integer, scales=finer), {"b": "2", "a": "1"}) != model


def test_two_layers_of_the_same_weights_keep_them_once() -> None:
    nodes = [
        Node("conv", (f"x{i}",), f"x{i + 1}", kernel=k, kernel_shape=(3, 3, 16, 16), padding="SAME")
        for i, k in enumerate("aa")
    ]
    tensors = tuple(Tensor(f"x{i}", (1, 8, 8, 16)) for i in range(3))
    graph = Graph(tuple(nodes), tensors, ("x0",), ("x2",))
    shared = len(write(Program(graph, {"a": np.random.default_rng(0).normal(size=(3, 3, 16, 16))})))
    assert 9216 < shared < 9216 + 2000


def test_problems_are_named() -> None:
    program, inputs = program_of(CASES["dense"])
    integer = in_integers(program, real_values(program, inputs), "int8")
    with pytest.raises(ValueError, match="parameter 'w/kernel', which was not given"):
        write(replace(program, params={}))
    with pytest.raises(ValueError, match="'y' is an integer tensor, but its weights are given in float only"):
        write(replace(integer, integers={}))
    with pytest.raises(ValueError, match=r"'y' \(dense\) mixes float32, int8; put a quantize node between"):
        write(replace(integer, scales={"y": integer.scales["y"]}))
    for dtype, shape in (("int8", (3, 5)), ("int16", (12, 5))):
        other = integer.integers["y"]._replace(kernel=np.zeros(shape, dtype))
        with pytest.raises(
            ValueError, match=rf"integers of 'y' are {dtype} \({shape[0]}, 5\), not int8 \(12, 5\)"
        ):
            write(replace(integer, integers={"y": other}))
    fused, _ = program_of(Case({"op": "tanh", "activation": "relu"}))
    with pytest.raises(ValueError, match="tanh has no fused relu in TFLite; use a clamp"):
        write(fused)
    oblong, _ = program_of(Case({"op": "depth_to_space", "window": (1, 2)}))
    with pytest.raises(ValueError, match=r"square blocks, not \(1, 2\)"):
        write(oblong)
    kernel = Node("constant", (), "k", kernel="w/kernel", kernel_shape=(12, 5))
    dense = replace(program.graph.nodes[0], inputs=("x0", "k"), kernel=None)
    tensors = (Tensor("k", (12, 5)), *program.graph.tensors)
    with pytest.raises(ValueError, match="the kernel of 'y' is computed from weights; fold it"):
        write(replace(program, graph=replace(program.graph, nodes=(kernel, dense), tensors=tensors)))
    lost = replace(program.graph, outputs=("z",))
    with pytest.raises(ValueError, match="output 'z' is made by no node"):
        write(replace(program, graph=lost))


def test_layouts_of_the_file() -> None:
    assert file_layout("conv", np.zeros((3, 5, 2, 7))).shape == (7, 3, 5, 2)
    assert file_layout("transpose_conv", np.zeros((3, 5, 2, 7))).shape == (7, 3, 5, 2)
    assert file_layout("depthwise", np.zeros((3, 5, 1, 7))).shape == (1, 3, 5, 7)
    assert file_layout("dense", np.zeros((3, 7))).shape == (7, 3)
