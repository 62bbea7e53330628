"""Whole files: what is written comes back, files as other converters write them mean what LiteRT computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import flatbuffers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.graph.exact import compile_exact
from research.graph.integer import quantise
from research.graph.interpret import site_values
from research.graph.ir import WEIGHTED, Node, check
from research.graph.operators import CLAMPS, TYPES, VERSIONS, operator_code
from research.graph.oracle import run, values
from research.graph.program import Program
from research.graph.read import read, unique
from research.graph.rewrite import fold_constants_only, optimise
from research.graph.runtime import run_raw, run_tflite
from research.graph.tangles import tangle
from research.graph.tflite import IDENTIFIER, Writer, schema
from research.graph.trace import trace
from research.graph.weights import weights_of
from research.graph.write import write
from tests.graph.cases import CASES, in_integers, program_of, real_values
from tests.graph.samples import inverted_residual


def meaning(program: Program, node: Node) -> dict[str, Any]:
    """A node without the names of its weights; its numbers as the file can hold them."""
    plain, form = (
        replace(node, kernel=None if node.kernel is None else "w", bias=None),
        program.scales.get(node.output),
    )
    alpha = (
        np.float32(node.alpha) if form is None or node.op != "pad" else form.quantise(np.float32(node.alpha))
    )
    bounds = None if node.bounds is None else tuple(map(float, node.bounds))
    return vars(replace(plain, alpha=float(alpha), bounds=bounds))


def same(ours: Program, theirs: Program) -> None:
    """Equal nodes, tensors, scales and weights; a layer without a bias may have one of zeros."""
    for mine, other in zip(ours.graph.nodes, theirs.graph.nodes, strict=True):
        assert meaning(ours, mine) == meaning(theirs, other)
    assert ours.graph.inputs, ours.graph.outputs == (theirs.graph.inputs, theirs.graph.outputs)
    assert {t.name: t.shape for t in ours.graph.tensors} == {t.name: t.shape for t in theirs.graph.tensors}
    assert ours.scales == {n: a._replace(scale=float(np.float32(a.scale))) for n, a in theirs.scales.items()}
    assert ours.integers.keys() == theirs.integers.keys()
    for name, found in ours.integers.items():
        for mine, other in zip(found, theirs.integers[name], strict=True):
            if name in {n.output for n in ours.graph.nodes if n.op in WEIGHTED} or mine is found.kernel:
                np.testing.assert_array_equal(mine.reshape(-1), other.reshape(-1))
                assert mine.dtype == other.dtype
    held, asked = (weights_of(_float_part(p), p.params) for p in (ours, theirs))
    for mine, other in zip(ours.graph.nodes, theirs.graph.nodes, strict=True):
        if mine.kernel is not None and mine.output not in ours.scales:
            np.testing.assert_array_equal(held.kernel(mine), asked.kernel(other))
            if mine.bias is not None:
                wanted = np.zeros(mine.kernel_shape[-1]) if other.bias is None else asked.bias(other)
                np.testing.assert_array_equal(held.bias(mine), wanted)


def _float_part(program: Program) -> Any:
    nodes = tuple(n for n in program.graph.nodes if n.output not in program.scales)
    return replace(program.graph, nodes=nodes)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", CASES)
def test_every_operation_comes_back(name: str, dtype: str) -> None:
    program, inputs = program_of(CASES[name])
    if dtype != "float32":
        program = in_integers(program, real_values(program, inputs), dtype)
    if VERSIONS[operator_code(program, program.graph.nodes[-1])][TYPES.index(dtype)]:
        same(read(write(program)), program)


@pytest.mark.parametrize("bias", ["int32", "int64"])
@pytest.mark.parametrize("per_tensor", [True, False])
def test_scales_and_accumulators_come_back(bias: str, per_tensor: bool) -> None:
    program, inputs = program_of(CASES["conv_grouped"])
    whole = in_integers(program, real_values(program, inputs), "int16", bias, per_tensor)
    same(read(write(whole)), whole)
    assert read(write(whole)).integers["y"].bias.dtype == bias
    assert read(write(whole)).integers["y"].scale.size == (1 if per_tensor else 6)


@given(st.integers(0, 10_000), st.sampled_from(["float", "int8", "mixed"]))
def test_networks_come_back(seed: int, kind: str) -> None:
    """Node by node, where TFLite has each; always in meaning, and from then on unchanged."""
    graph, params, _ = optimise(tangle(seed, integers=kind != "float"), {})
    program = Program(graph, weights_of(graph, params).arrays)
    images = (
        np.random.default_rng(seed).uniform(-1, 1, (2, *graph.shape(graph.inputs[0])[1:])).astype(np.float32)
    )
    if kind != "float":
        ranges = {name: (float(v.min()), float(v.max())) for name, v in values(program, [images]).items()}
        wide = (
            [n.output for n in graph.nodes if n.op in (*WEIGHTED, "add", "mul")][::2]
            if kind == "mixed"
            else []
        )
        program = quantise(graph, params, ranges, bits=dict.fromkeys(wide, 16))
        images = program.scales[graph.inputs[0]].quantise(images)
    found = read(write(program))
    for ours, wanted in zip(run(found, [images]), run(program, [images]), strict=True):
        near = 1e-6 * float(kind == "float")  # the file's numbers are float32
        np.testing.assert_allclose(ours, wanted, rtol=near, atol=near * np.max(np.abs(wanted)))
    same(read(write(found)), found)
    if all(n.op != "clamp" or n.bounds in CLAMPS for n in graph.nodes):
        same(found, program)


def test_an_imported_network_may_be_fused_and_written_again() -> None:
    net = inverted_residual()
    graph, params, _ = fold_constants_only(trace(net.fn, net.params, net.image), net.params)
    found = read(write(Program(graph, weights_of(graph, params).arrays)))
    assert [t.name for t in found.graph.tensors if t.site] == [*found.graph.inputs, *found.graph.outputs]
    fused, weights, _ = optimise(found.graph, found.params)
    assert len(fused.nodes) < len(found.graph.nodes)
    images = net.images()
    truth = run_tflite(write(found), images)
    np.testing.assert_allclose(
        run_tflite(write(Program(fused, weights)), images), truth, rtol=1e-4, atol=1e-5
    )
    sites = site_values(found.graph, found.params, images)
    np.testing.assert_allclose(sites[found.graph.outputs[0]], truth, rtol=1e-4, atol=1e-5)


IMAGE, OUT = (1, 6, 5, 4), (1, 6, 5, 3)
STEPS = {"padding": 0, "strideW": 1, "strideH": 1}


def convolution(weights: str, activations: str = "float32", ends: str = "") -> bytes:
    """A convolution whose kernel is stored as `weights`, with a DEQUANTIZE unless it computes in that type.

    ends: type of the network's input and output, with a QUANTIZE on either side.
    """
    rng, writer = np.random.default_rng(0), Writer("conv")
    kernel = rng.normal(size=(3, 3, 3, 4))
    scales = np.float32([0.02, 0.03, 0.05])
    whole = np.clip(kernel / scales[:, None, None, None], -127, 127).astype(np.int8)
    integer = activations != "float32"
    kind, form = np.dtype(activations).type, (0.02, 3) if integer else (None, 0)
    x, y = (writer.tensor(n, s, kind, *form) for n, s in (("x", IMAGE), ("y", OUT)))
    if weights == "float16":
        stored = writer.tensor("kernel", kernel.shape, np.float16, data=kernel)
    else:
        stored = writer.tensor("kernel", kernel.shape, np.int8, scales, 0, whole)
    if not integer and weights != "hybrid":
        full = writer.tensor("kernel_full", kernel.shape, np.float32)
        writer.operator("DEQUANTIZE", 5, [stored], full, None, {})
        stored = full
    units = scales * np.float32(0.02) if integer else None
    bias = writer.tensor("bias", (3,), np.int32 if integer else np.float32, units, 0, np.arange(3))
    source, out = x, y
    if ends:
        source, out = (
            writer.tensor(n, s, np.dtype(ends).type, 0.02, 131) for n, s in (("in", IMAGE), ("out", OUT))
        )
        writer.operator("QUANTIZE", 2, [source], x, None, {})
    writer.operator("CONV_2D", 5, [x, stored, bias], y, "Conv2DOptions", STEPS)
    if ends:
        writer.operator("QUANTIZE", 2, [y], out, None, {})
    return writer.finish([source], [out], {})


@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_weights_before_a_dequantize_are_float(weights: str) -> None:
    model, x = convolution(weights), np.random.default_rng(1).normal(size=IMAGE).astype(np.float32)
    program = read(model)
    assert [n.op for n in program.graph.nodes] == ["conv"]
    assert program.graph.nodes[0].kernel == "kernel"
    assert program.params["kernel"].shape == (3, 3, 4, 3)
    (truth,) = run_raw(model, [x])
    np.testing.assert_allclose(run(program, [x])[0], truth, rtol=1e-5, atol=1e-5)


def test_images_in_uint8_around_an_int8_network() -> None:
    model, x = convolution("int8", "int8", "uint8"), np.arange(120, dtype=np.uint8).reshape(IMAGE)
    program = read(model)
    assert [n.op for n in program.graph.nodes] == ["quantize", "conv", "quantize"]
    (truth,) = run_raw(model, [x])
    assert truth.dtype == np.uint8
    np.testing.assert_array_equal(run(program, [x])[0], truth)
    np.testing.assert_array_equal(compile_exact(program)(x)[0], truth)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (convolution("hybrid"), "int8 weights and float activations .dynamic range., which LiteRT rounds"),
        (convolution("float16", "int8"), "its weights are float16; read is int8"),
        (
            convolution("int8", "uint8"),
            "computes in uint8, the old quantisation; convert the network again, to int8",
        ),
    ],
)
def test_mixtures_are_refused_in_one_line(model: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=rf"operator 0 of the .tflite file \(CONV_2D makes 'y'\).*{message}"):
        read(model)


def changed(model: bytes, **fields: Any) -> bytes:
    """The file with fields of its last operator's tensor, or of tensor number n by `t<n>_field`, set."""
    parsed = schema().ModelT.InitFromPackedBuf(bytearray(model), 0)
    for name, value in fields.items():
        number, field = name[1:].split("_", 1)
        held = parsed.subgraphs[0].tensors[int(number)]
        *path, last = field.split("__")
        for part in path:
            held = getattr(held, part)
        setattr(held, last, value)
    builder = flatbuffers.Builder(1 << 10)
    builder.Finish(parsed.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


INT8 = convolution("int8", "int8")


def test_weights_that_are_not_symmetric_or_scaled_along_the_inputs_are_refused() -> None:
    for fields, message in (
        (
            {"t2_quantization__zeroPoint": [0, 1, 0]},
            "its weights are int8; read is int8 with .* zero points of 0",
        ),
        (
            {"t2_quantization__quantizedDimension": 1},
            "scales lie along axis 1, not along the output channels",
        ),
        (
            {"t0_quantization__zeroPoint": [1], "t0_type": 7, "t1_type": 7},
            "'x' .* int16 with scale 0.02, zero point 1",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            read(changed(INT8, **fields))


def test_names_are_made_unique() -> None:
    model = changed(INT8, t0_name="", t1_name="", t2_name="bias")
    program, wanted = read(model), read(INT8)
    check(program.graph)
    assert len({t.name for t in program.graph.tensors}) == 2
    x = np.arange(120, dtype=np.int8).reshape(IMAGE)
    np.testing.assert_array_equal(run(program, [x])[0], run(wanted, [x])[0])


@given(st.lists(st.sampled_from(["", "a", "a/1", "a/2", "tensor/0", "b"]), max_size=12))
def test_unique_keeps_names_that_are(names: list[str]) -> None:
    made = unique(names)
    assert len(set(made)) == len(made)
    assert all(
        m == n or not n or names.index(n) < i for i, (m, n) in enumerate(zip(made, names, strict=True))
    )
    assert all(name in made for name in names if name)


def test_open_sizes_are_refused_but_not_an_open_batch() -> None:
    assert read(changed(INT8, t0_shapeSignature=[-1, 6, 5, 4])).graph.shape("x") == IMAGE
    with pytest.raises(ValueError, match=r"input 'x' .* has the open shape \(-1, -1, 5, 4\)"):
        read(changed(INT8, t0_shapeSignature=[-1, -1, 5, 4]))


def test_outputs_of_operators_that_make_sizes_are_refused() -> None:
    writer = Writer("shape")
    x, y = writer.tensor("x", (1, 4), np.float32), writer.tensor("y", (2,), np.int32)
    writer.operator("SHAPE", 1, [x], y, None, {})
    with pytest.raises(ValueError, match=r"output 'y' of the .tflite file is int32"):
        read(writer.finish([x], [y], {}))


def test_a_constant_may_be_an_output() -> None:
    writer = Writer("constant")
    x, c = (
        writer.tensor("x", (1, 2), np.float32),
        writer.tensor("c", (1, 2), np.float32, data=np.ones((1, 2))),
    )
    program = read(writer.finish([x], [x, c], {}))
    assert program.graph.outputs == ("x", "c")
    np.testing.assert_array_equal(run(program, [np.zeros((1, 2), np.float32)])[1], np.ones((1, 2)))
