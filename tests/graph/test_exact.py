"""Whole programs: every tensor against LiteRT, formats meeting, refusals, and no trace of 64 bits."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import inf
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.graph.exact import compile_exact, integer_bounds, values
from research.graph.integer import quantise
from research.graph.interpret import interpret_float, observe
from research.graph.ir import Graph, Node, Tensor
from research.graph.program import LIMITS, Affine, DType, IntegerWeights, Program
from research.graph.runtime import run_raw
from research.graph.trace import trace
from research.graph.write import write
from tests.graph.exact_cases import program
from tests.graph.samples import inverted_residual


def network(bits: dict[str, int], size: int = 12) -> tuple[Program, np.ndarray]:
    """A small network in integers, and the integers of 3 images."""
    net = inverted_residual(size)
    graph, images = trace(net.fn, net.params, net.image), net.images(3)
    made = quantise(graph, net.params, observe(graph, net.params, images), bits=bits)
    return made, made.scales[made.graph.inputs[0]].quantise(images)


@pytest.mark.parametrize("bits", [{}, {"*": 16}, {"b0/*": 16, "head": 16}], ids=["8", "16", "mixed"])
def test_every_tensor_of_a_network_is_litert(bits: dict[str, int]) -> None:
    made, images = network(bits)
    names = tuple(n.output for n in made.graph.nodes if n.op != "constant")
    wanted = run_raw(write(replace(made, graph=replace(made.graph, outputs=names))), [images])
    got = values(made, [images])
    assert set(got) == {t.name for t in made.graph.tensors}
    for name, truth in zip(names, wanted, strict=True):
        assert got[name].dtype == truth.dtype == made.dtype(name)
        assert got[name].shape == truth.shape
        np.testing.assert_array_equal(got[name], truth, err_msg=name)
    np.testing.assert_array_equal(compile_exact(made)(images)[0], got[made.graph.outputs[0]])


def chain(formats: list[Affine | None]) -> Program:
    """quantize nodes between the formats; None is float32."""
    names = [f"t{i}" for i in range(len(formats))]
    nodes = tuple(Node("quantize", (a,), b) for a, b in pairwise(names))
    tensors = tuple(Tensor(n, (1, 6, 5)) for n in names)
    scales = {n: f for n, f in zip(names, formats, strict=True) if f is not None}
    return Program(Graph(nodes, tensors, (names[0],), tuple(names[1:])), {}, scales)


@st.composite
def formats(draw: st.DrawFn) -> Affine:
    dtype: DType = draw(st.sampled_from(["int8", "uint8", "int16"]))
    zero = 0 if dtype == "int16" else draw(st.integers(*LIMITS[dtype]))
    return Affine(float(np.float32(2.0 ** draw(st.floats(-9, 2)))), zero, dtype)


@settings(max_examples=15)
@given(formats(), formats(), st.integers(0, 10**6))
def test_formats_meet_as_in_litert(a: Affine, b: Affine, seed: int) -> None:
    """float -> a -> float -> b -> a: quantise, dequantise and requantise, in any two formats."""
    if (b.dtype, a.dtype) == ("int16", "uint8"):
        a, b = b, a
    made = chain([None, a, None, b, a])
    rng = np.random.default_rng(seed)
    x = (rng.normal(0, 300 * a.scale, (4, 6, 5))).astype(np.float32)
    x[1] = (rng.integers(-300, 300, (6, 5)) + 0.5) * np.float32(a.scale)  # ties
    x[2] *= 1e6
    for truth, got in zip(run_raw(write(made), [x]), compile_exact(made)(x), strict=True):
        np.testing.assert_array_equal(truth, got)


def test_quantising_divides() -> None:
    """A product with 1 / scale, which XLA would make of it, rounds some of these to the other integer."""
    scale = np.float32(0.0123456)
    ties = ((np.arange(-30000, 30000) + np.float32(0.5)) * scale).astype(np.float32)
    x = np.concatenate([np.nextafter(ties, np.float32(-9e9)), ties, np.nextafter(ties, np.float32(9e9))])
    to = Affine(float(scale), 0, "int16")
    graph = Graph(
        (Node("quantize", ("x",), "y"),), (Tensor("x", (1, x.size)), Tensor("y", (1, x.size))), ("x",), ("y",)
    )
    got = np.asarray(compile_exact(Program(graph, {}, {"y": to}))(x[None])[0])
    assert (got == to.quantise(x)).all()
    assert (to.quantise(x) != np.trunc(x * (1 / scale) + np.copysign(np.float32(0.5), x))).any()


def test_float_nodes_are_the_interpreter() -> None:
    net = inverted_residual(12)
    graph, images = trace(net.fn, net.params, net.image), net.images(2)
    (got,) = compile_exact(Program(graph, net.params))(images)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, interpret_float(graph, net.params, images), rtol=1e-5, atol=1e-5)


def test_one_trace_for_every_size_and_no_64_bits_outside() -> None:
    made, images = network({})
    run = compile_exact(made)
    once = jax.jit(chex.assert_max_traces(lambda x: run(x)[0], n=1))
    first = once(images)
    np.testing.assert_array_equal(once(images[::-1]), first[::-1])
    for count in (1, 3, 1, 3):
        np.testing.assert_array_equal(run(images[:count])[0], first[:count])
    assert run._cache_size() == 2
    assert not jax.config.jax_enable_x64
    assert (jnp.arange(3).dtype, jnp.zeros(3).dtype, first.dtype) == (jnp.int32, jnp.float32, jnp.int8)


def test_images_do_not_mix() -> None:
    made, images = network({"*": 16})
    run = compile_exact(made)
    apart = np.concatenate([run(images[i : i + 1])[0] for i in range(3)])
    np.testing.assert_array_equal(run(images)[0], apart)


@given(st.floats(1e-4, 10), st.integers(-128, 127))
def test_integer_bounds(scale: float, zero: int) -> None:
    out = Affine(scale, zero)
    assert integer_bounds(out, (-inf, inf)) == (-128, 127)
    assert integer_bounds(out, (0.0, inf)) == (zero, 127)
    low, high = integer_bounds(out, (-1.0, 6.0))
    assert abs(low - max(-128, zero - 1 / scale)) <= 0.51
    assert abs(high - min(127, zero + 6 / scale)) <= 0.51


EIGHT, SIXTEEN = Affine(0.1, 3), Affine(0.1, 0, "int16")
SHAPE = (1, 4, 4, 4)


def refused(op: Any, scales: list[Affine | None], **more: Any) -> Program:
    names = tuple("abc"[: len(scales) - 1])
    bias = more.pop("integers", None)
    held = (
        None
        if bias is None
        else IntegerWeights(np.ones(more["kernel_shape"], np.int8), np.ones(1, np.float32), bias)
    )
    known = {n: f for n, f in zip((*names, "o"), scales, strict=True) if f is not None}
    return program(Node(op, names, "o", **more), dict.fromkeys(names, SHAPE), known, SHAPE, held)


LAYER = {"kernel": "w", "kernel_shape": (1, 1, 1, 4), "bias": "b"}
REFUSED: dict[str, tuple[Program, str]] = {
    "mixed": (refused("add", [EIGHT, SIXTEEN, EIGHT]), r"'o' \(add, int8/int16\): mixes formats"),
    "half float": (refused("add", [EIGHT, None, EIGHT]), r"\(add, int8/float32\): mixes formats"),
    "left": (refused("add", [EIGHT, EIGHT, None]), r"\(add, int8/float32\): mixes formats"),
    "square": (refused("square", [EIGHT, EIGHT]), r"'o' \(square, int8\): LiteRT has no such kernel"),
    "uint8": (refused("neg", [Affine(0.1, 3, "uint8")] * 2), r"\(neg, uint8\): LiteRT has no such kernel"),
    "hard_swish": (
        refused("hard_swish", [SIXTEEN, SIXTEEN]),
        r"\(hard_swish, int16\): LiteRT has only an int8",
    ),
    "conversion": (refused("quantize", [SIXTEEN, Affine(0.1, 3, "uint8")]), "'o' .quantize, int16/uint8.: "),
    "fused": (refused("neg", [EIGHT, EIGHT], activation="relu"), "no fused relu; use a clamp"),
    "clamp": (refused("clamp", [EIGHT, EIGHT], bounds=(0.0, 2.0)), r"clamps to \(0.0, 2.0\)"),
    "narrow clamp": (refused("clamp", [SIXTEEN, SIXTEEN], bounds=(-1.0, 1.0)), r"clamps to \(-1.0, 1.0\)"),
    "no integers": (refused("depthwise", [EIGHT, EIGHT], **LAYER), "the program has no integers for it"),
    "bias": (
        refused("depthwise", [SIXTEEN, SIXTEEN], integers=np.zeros(4, np.int32), **LAYER),
        "needs a bias of int64$",
    ),
    "concat": (
        refused("concat", [EIGHT, EIGHT._replace(zero_point=4), EIGHT], axis=1),
        "needs one scale and zero point",
    ),
    "softmax": (refused("softmax", [EIGHT, EIGHT], alpha=1.0), "needs an output scale of 0.00390625"),
    "tanh": (refused("tanh", [SIXTEEN, SIXTEEN]), "needs an output scale of 3.0517578125e-05"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_node_and_format(name: str) -> None:
    made, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        compile_exact(made)


def test_inputs_are_checked() -> None:
    made, images = network({})
    run = compile_exact(made)
    for wrong in ([], [images, images], [images.astype(np.float32)], [images[:, 1:]]):
        with pytest.raises(ValueError, match=r"the program reads int8 \('N', 12, 12, 1\); got"):
            run(*wrong)
