"""Programs in the oracle and in LiteRT: floats, conversions between all formats, whole networks, refusals."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import jax
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from research.graph import oracle
from research.graph.integer import quantise
from research.graph.interpret import observe
from research.graph.ir import Graph, Node, Tensor
from research.graph.program import LIMITS, Affine, IntegerWeights, Program
from research.graph.runtime import run_raw
from research.graph.trace import trace
from research.graph.write import write
from tests.graph.cases import CASES, program_of
from tests.graph.oracle_cases import form, single
from tests.graph.samples import Net, inverted_residual, networks

FORMATS = ("float32", "int8", "uint8", "int16")


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_float_operator_is_litert_within_1e_5(name: str):
    program, inputs = program_of(CASES[name])
    ours, theirs = oracle.run(program, list(inputs.values())), run_raw(write(program), list(inputs.values()))
    assert ours[0].dtype == np.float32
    assert ours[0].shape == theirs[0].shape
    assert np.abs(ours[0] - theirs[0]).max() <= 1e-5 * max(1.0, np.abs(theirs[0]).max())


@pytest.mark.parametrize(
    ("source", "out"),
    [p for p in product(FORMATS, FORMATS) if p not in {("float32", "float32"), ("int16", "uint8")}],
)
@given(data=st.data())
def test_conversions_are_litert_bit_for_bit(source: str, out: str, data: st.DataObject):
    """Of every integer, or of floats from tiny to far outside, halves among them."""
    formats = [None if d == "float32" else form(data.draw, d, -5) for d in (source, out)]
    if None not in formats and data.draw(st.booleans()):
        formats[1] = formats[1]._replace(scale=formats[0].scale)
    if formats[0] is None:
        rng = np.random.default_rng(data.draw(st.integers(0, 999)))
        scale = np.float32(formats[1].scale)
        halves = (rng.integers(-300, 300, 200) + 0.5).astype(np.float32) * scale
        x = np.concatenate(
            [halves, rng.normal(size=200) * 10 ** rng.uniform(-6, 9, 200), [np.inf, -np.inf, np.nan]]
        )
        x = x.astype(np.float32)[None]
    else:
        x = np.arange(LIMITS[source][0], LIMITS[source][1] + 1).astype(source)[None]
    program = single({"op": "quantize"}, [x.shape], [formats[0]], formats[1])
    (ours,), (theirs,) = oracle.run(program, [x]), run_raw(write(program), [x])
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


def test_int16_to_uint8_is_refused_as_by_litert():
    program = single({"op": "quantize"}, [(1, 1)], [Affine(1.0, 0, "int16")], Affine(1.0, 0, "uint8"))
    with pytest.raises(ValueError, match="'y': LiteRT has no quantize from int16 to uint8"):
        oracle.run(program, [np.zeros((1, 1), np.int16)])


def differing(graph: Graph, net: Net, bits: dict[str, int]) -> int:
    """Differing integers of all tensors of the quantised network, each of them made an output of the file."""
    images = net.images(3)
    program = quantise(graph, net.params, observe(graph, net.params, images), bits=bits)
    made = tuple(n.output for n in program.graph.nodes if n.op != "constant")
    program = replace(program, graph=replace(program.graph, outputs=made))
    inputs = [program.scales[program.graph.inputs[0]].quantise(images)]
    ours, theirs = oracle.values(program, inputs), run_raw(write(program), inputs)
    for name, value in zip(made, theirs, strict=True):
        assert ours[name].dtype == value.dtype
        assert ours[name].shape == value.shape
    return sum(int((ours[n] != v).sum()) for n, v in zip(made, theirs, strict=True))


@pytest.mark.parametrize("bits", [{}, {"*": 16}, {"b0/*": 16}], ids=["int8", "int16x8", "mixed"])
def test_no_tensor_of_a_network_differs_from_litert(bits: dict[str, int]):
    net = inverted_residual()
    assert differing(trace(net.fn, net.params, net.image), net, bits) == 0


@settings(max_examples=6)
@given(networks, st.sampled_from([{}, {"*": 16}]))
def test_no_tensor_of_a_random_network_differs_from_litert(net: Net, bits: dict[str, int]):
    graph = trace(net.fn, net.params, net.image)
    assume(all(n.bounds != (-1.0, 2.0) for n in graph.nodes))  # TFLite has no such RELU
    assert differing(graph, net, bits) == 0


def mixture() -> Program:
    """float -> int8, a layer, -> int16, its square, -> float, softmax."""
    names = ("image", "q", "layer", "wide", "square", "real", "y")
    shapes = ((1, 3, 3, 2),) * 2 + ((1, 3, 3, 4),) * 5
    nodes = (
        Node("quantize", ("image",), "q"),
        Node("conv", ("q",), "layer", kernel="k", kernel_shape=(1, 1, 2, 4), bias="b", activation="relu"),
        Node("quantize", ("layer",), "wide"),
        Node("mul", ("wide", "wide"), "square"),
        Node("quantize", ("square",), "real"),
        Node("softmax", ("real",), "y", alpha=1.0),
    )
    rng = np.random.default_rng(0)
    kernel = rng.integers(-127, 128, (1, 1, 2, 4)).astype(np.int8)
    weights = IntegerWeights(kernel, np.full(4, 0.01, np.float32), np.arange(4, dtype=np.int32))
    scales = {"q": Affine(0.0078125, 3), "layer": Affine(0.015625, -128)}
    scales |= {"wide": Affine(0.001953125, 0, "int16"), "square": Affine(0.00390625, 0, "int16")}
    tensors = tuple(Tensor(n, s) for n, s in zip(names, shapes, strict=True))
    return Program(Graph(nodes, tensors, ("image",), names[1:]), {}, scales, {"layer": weights})


def test_a_program_of_many_formats_runs_as_in_litert():
    program, images = mixture(), np.random.default_rng(1).uniform(-1, 1, (5, 3, 3, 2)).astype(np.float32)
    ours, theirs = oracle.run(program, [images]), run_raw(write(program), [images])
    assert [a.dtype.name for a in ours] == ["int8", "int8", "int16", "int16", "float32", "float32"]
    for a, b in zip(ours[:-1], theirs[:-1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(ours[-1] - theirs[-1]).max() < 1e-6
    assert len(np.unique(ours[3])) > 10


def test_images_do_not_meet():
    """A batch gives what its images give one by one."""
    net = inverted_residual(8, 4)
    graph = trace(net.fn, net.params, net.image)
    images = net.images(3)
    program = quantise(graph, net.params, observe(graph, net.params, images))
    x = program.scales[program.graph.inputs[0]].quantise(images)
    apart = np.concatenate([oracle.run(program, [image[None]])[0] for image in x])
    np.testing.assert_array_equal(oracle.run(program, [x])[0], apart)
    assert len({row.tobytes() for row in apart}) == 3


def test_an_operator_that_mixes_images_wants_one_at_a_time():
    unit = Affine(1.0, 0)
    cases = [
        single({"op": "transpose", "axes": (1, 0)}, [(1, 1)], [unit], unit),
        single({"op": "mean", "axes": (0,)}, [(1, 4)], [unit], unit, (1, 4)),
        single({"op": "reshape"}, [(1, 4)], [unit], unit, (2, 2)),
        single({"op": "add"}, [(1, 2, 2), (1, 2)], [unit] * 2, unit),
    ]
    for program in cases:
        xs = [np.ones((2, *program.graph.shape(n)[1:]), np.int8) for n in program.graph.inputs]
        with pytest.raises(ValueError, match=r"'y' \(\w+\) mixes images; run one at a time"):
            oracle.run(program, xs)
        assert oracle.run(program, [x[:1] for x in xs])[0].shape == program.graph.shape("y")


def test_inputs_and_numbers_that_are_missing_or_do_not_fit_are_named():
    program, image = mixture(), np.zeros((1, 3, 3, 2), np.float32)
    with pytest.raises(ValueError, match=r"input 'image' is float64 \(1, 3, 3, 2\); wanted float32"):
        oracle.run(program, [image.astype(np.float64)])
    with pytest.raises(ValueError, match=r"wanted float32 \(2, 3, 3, 2\)"):
        oracle.run(program, [np.zeros((2, 3, 3, 1), np.float32)])
    with pytest.raises(ValueError, match="'layer': the program lacks its integers"):
        oracle.run(replace(program, integers={}), [image])
    layer = {"op": "dense", "kernel": "k", "kernel_shape": (1, 1), "bias": "b"}
    with pytest.raises(ValueError, match=r"'y': the program lacks its \['k', 'b'\]"):
        oracle.run(single(layer, [(1, 1)], [None], None), [np.zeros((1, 1), np.float32)])
    with pytest.raises(ValueError, match="'layer': LiteRT has no conv from float32 to int8"):
        oracle.run(replace(program, scales={"layer": Affine(1.0, 0)}), [image])


def test_the_oracle_shares_nothing_with_the_interpreter_it_judges():
    """No jax and nothing of `exact` or `interpret` is reached from its modules."""
    for name in ("", "_fixed", "_integer", "_window"):
        module = __import__(f"research.graph.oracle{name}", fromlist=["x"])
        assert jax not in vars(module).values()
        origins = {getattr(v, "__module__", "") or "" for v in vars(module).values()}
        assert not {o for o in origins if "exact" in o or "interpret" in o}
