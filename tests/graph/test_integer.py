"""Quantisation: zeros are exact, rounding is bounded, nothing overflows, and LiteRT runs what comes out."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from research.graph.integer import (
    FIXED,
    SAME_SCALE,
    affine,
    channel_scales,
    correct_bias,
    precisions,
    quantise,
    quantise_weights,
    shared_scales,
    tensor_scales,
)
from research.graph.interpret import interpret_float, observe
from research.graph.ir import Graph, Node, Op, Tensor
from research.graph.operators import CLAMPS
from research.graph.program import Affine, Program
from research.graph.rewrite import fuse
from research.graph.runtime import run_raw
from research.graph.trace import trace
from research.graph.write import write
from tests.graph.cases import CASES, program_of, real_values
from tests.graph.samples import Net, inverted_residual, networks, sqnr_db, two_of_four

BOUND = st.floats(-1e4, 1e4, width=32)


@given(BOUND, BOUND)
def test_a_range_holds_zero_exactly_and_its_ends_within_a_step(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    q = affine(low, high)
    assert -128 <= q.zero_point <= 127
    assert q.real(q.quantise(np.zeros(1)))[0] == 0.0
    values = np.linspace(low, high, 50)
    assert np.abs(q.real(q.quantise(values)) - values).max() <= 1.001 * q.scale + 1e-9


@given(BOUND, BOUND, st.integers(0, 10**6))
def test_integers_come_back_from_their_real_values(a: float, b: float, seed: int) -> None:
    q = affine(min(a, b), max(a, b))
    integers = np.random.default_rng(seed).integers(-128, 128, 20).astype(np.int8)
    np.testing.assert_array_equal(q.quantise(q.real(integers)), integers)


def test_values_outside_the_range_saturate() -> None:
    assert affine(0.0, 6.0).quantise(np.array([-3.0, 0.0, 6.0, 99.0])).tolist() == [-128, -128, 127, 127]


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_ranges_that_mean_nothing_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="finite low <= high"):
        affine(*bounds)


@pytest.mark.parametrize("bounds", [(0.0, 0.0), (0.0, 1e-30), (5.0, 5.0)])
def test_ranges_without_width_still_work(bounds: tuple[float, float]) -> None:
    q = affine(*bounds)
    assert q.scale > 1e-10
    assert abs(q.real(q.quantise(np.array(bounds)))[1] - bounds[1]) <= 0.51 * q.scale + 1e-30


@given(st.integers(0, 10**6), st.sampled_from([(3, 3, 8, 4), (3, 3, 1, 8), (8, 4)]))
def test_weights_round_to_the_nearest_and_keep_their_zeros(seed: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=shape) * np.exp(rng.normal(size=shape[-1:]) * 2)
    kernel = two_of_four(kernel) if shape[-2] > 1 else kernel
    bias = rng.normal(size=shape[-1])
    q = quantise_weights(kernel, bias, 0.02)
    assert q.kernel.dtype == np.int8
    assert q.bias.dtype == np.int32
    assert q.kernel.min() >= -127
    assert not q.kernel[kernel == 0].any()
    assert np.all(np.abs(q.kernel).reshape(-1, shape[-1]).max(0) == 127)
    rows = q.scale.reshape((1,) * (len(shape) - 1) + (-1,))
    assert np.all(np.abs(q.kernel * rows - kernel) <= 0.501 * rows)
    np.testing.assert_allclose(q.bias * (q.scale * 0.02), bias, atol=0.51 * 0.02 * q.scale.max())


def test_large_biases_and_tiny_channels_do_not_overflow() -> None:
    kernel = np.full((1, 1, 2, 4), 0.5)
    kernel[..., 1] = 1e-12
    kernel[..., 2] = 0.0
    bias = np.array([0.0, 3.0, -2.0, 1e9])
    q = quantise_weights(kernel, bias, 1e-3)
    assert np.abs(q.bias.astype(np.int64)).max() <= 1.001 * 2**30
    np.testing.assert_allclose(q.bias * q.scale.astype(np.float64) * 1e-3, bias, rtol=1e-4, atol=1e-6)
    assert np.isfinite(q.scale).all()
    assert (q.scale > 0).all()
    assert (channel_scales(np.zeros((2, 3)), np.zeros(3), 0.1) > 0).all()


def test_weights_that_cannot_be_quantised_are_refused() -> None:
    with pytest.raises(ValueError, match="4 output channels"):
        quantise_weights(np.ones((2, 4)), np.ones(3), 0.1)
    with pytest.raises(ValueError, match="not finite"):
        quantise_weights(np.array([[np.nan]]), np.ones(1), 0.1)


@pytest.mark.parametrize("shape", [(3, 3, 5, 4), (3, 3, 1, 5), (5, 4), (1, 1, 1, 1)])
def test_bias_correction_removes_the_mean_error(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    kernel, mean = rng.normal(size=shape), rng.uniform(1, 2, 1 if shape == (1, 1, 1, 1) else 5)
    bias = np.zeros(shape[-1])
    q = quantise_weights(kernel, bias, 0.01)
    rounded = q.kernel * q.scale.reshape((1,) * (len(shape) - 1) + (-1,))
    rows = np.moveaxis(kernel - rounded, -1, 0).reshape(shape[-1], -1)
    constant = mean[:, None] if shape[2:] == (1, 5) else np.tile(mean, rows.shape[1] // len(mean))[None, :]
    wanted = (rows * constant).sum(1)
    np.testing.assert_allclose(correct_bias(kernel, bias, 0.01, mean), wanted, atol=1e-9)
    with pytest.raises(ValueError, match="do not fit a kernel"):
        correct_bias(kernel, bias, 0.01, np.ones(7))


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 10**6))
def test_bias_correction_knows_groups(groups: int, inputs: int, outputs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(2, 2, inputs, groups * outputs))
    mean = rng.uniform(1, 2, groups * inputs)
    parts = [
        correct_bias(kernel[..., o : o + outputs], np.zeros(outputs), 0.01, mean[i : i + inputs])
        for o, i in zip(range(0, groups * outputs, outputs), range(0, groups * inputs, inputs), strict=True)
    ]
    whole = correct_bias(kernel, np.zeros(groups * outputs), 0.01, mean)
    np.testing.assert_allclose(whole, np.concatenate(parts), atol=1e-9)


def chain() -> Graph:
    """x -> pool -> p; (p, y = clamp x) -> concat -> c -> reshape -> r; x -> clamp -> z."""
    image, wide = (1, 2, 2, 2), (1, 2, 2, 4)
    nodes = (
        Node("max_pool", ("x",), "p", window=(1, 1)),
        Node("clamp", ("x",), "y", bounds=(0.0, 6.0)),
        Node("concat", ("p", "y"), "c", axis=3),
        Node("reshape", ("c",), "r"),
        Node("clamp", ("r",), "z", bounds=(0.0, 6.0)),
    )
    shapes = {"x": image, "p": image, "y": image, "c": wide, "r": (1, 16), "z": (1, 16)}
    return Graph(nodes, tuple(Tensor(n, s) for n, s in shapes.items()), ("x",), ("z",))


def test_integers_that_are_only_moved_share_one_scale() -> None:
    graph = chain()
    assert shared_scales(graph) == (("x", "p", "y", "c", "r"), ("z",))
    scales = tensor_scales(graph, {"p": (-1.0, 2.0), "y": (0.0, 4.0), "z": (0.0, 6.0)})
    assert scales["x"] == scales["r"] == affine(-1.0, 4.0)
    assert scales["z"] == Affine(float(np.float32(6 / 255)), -128)


def test_ranges_are_asked_for_by_name() -> None:
    with pytest.raises(ValueError, match=r"no range .* for 'z'"):
        tensor_scales(chain(), {"x": (0.0, 1.0)})
    with pytest.raises(ValueError, match="'x' or 'p' or 'y' or 'c' or 'r'"):
        tensor_scales(chain(), {"z": (0.0, 1.0)})
    with pytest.raises(ValueError, match="'w', not a tensor"):
        tensor_scales(chain(), {"w": (0.0, 1.0)})
    with pytest.raises(ValueError, match="range of 'z'"):
        tensor_scales(chain(), {"x": (0.0, 1.0), "z": (1.0, 0.0)})


def run(program: Program, inputs: dict[str, np.ndarray], reference: bool = True) -> list[np.ndarray]:
    """Real values of LiteRT's outputs for real inputs."""
    graph = program.graph
    whole = [program.scales[name].quantise(inputs[name]) for name in graph.inputs]
    got = run_raw(write(program), whole, reference=reference)
    return [program.scales[name].real(v) for name, v in zip(graph.outputs, got, strict=True)]


def ranges_of(values: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    return {name: (float(v.min()), float(v.max())) for name, v in values.items()}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", CASES)
def test_every_operation_runs_near_its_float_meaning(name: str, bits: int) -> None:
    program, inputs = program_of(CASES[name])
    values = real_values(program, inputs)
    if bits == 16 and name in ("prelu", "relu_n1_to_1", "hard_swish", "depth_to_space"):
        with pytest.raises(ValueError, match=f"'y': LiteRT has no int{bits} kernel of"):
            quantise(program.graph, program.params, ranges_of(values), bits={"*": bits})
        return
    made = quantise(program.graph, program.params, ranges_of(values), bits={"*": bits})
    for reference in (True, False):
        (got,) = run(made, inputs, reference)
        assert sqnr_db(values["y"], got) > (27 if bits == 8 else 35)


def holds_together(program: Program) -> None:
    """What TFLite's specification asks of scales and formats."""
    for node in program.graph.nodes:
        formats = [program.scales[t] for t in (*node.inputs, node.output)]
        if node.op in SAME_SCALE:
            assert len(set(formats)) == 1
        if node.op in FIXED:
            assert formats[-1] == FIXED[node.op][formats[-1].dtype]
        if node.op != "quantize":
            assert len({f.dtype for f in formats}) == 1
        assert all(f.zero_point == 0 for f in formats if f.dtype == "int16")


@settings(max_examples=15)
@given(networks, st.booleans(), st.integers(0, 10**6))
def test_random_networks_with_random_precisions_run(net: Net, fused: bool, seed: int) -> None:
    graph = trace(net.fn, net.params, net.image)
    graph, rng, images = fuse(graph)[0] if fused else graph, np.random.default_rng(seed), net.images(6)
    assume(all(n.op != "clamp" or n.bounds in CLAMPS for n in graph.nodes))
    layers = [n.output for n in graph.nodes if n.op not in ("constant", "clamp")]
    bits = {name: 16 for name in layers if rng.uniform() < 0.5}
    program = quantise(graph, net.params, observe(graph, net.params, images), bits=bits)
    holds_together(program)
    assert {program.dtype(n) for n in bits} <= {"int16"}
    real = interpret_float(graph, net.params, images)
    for reference in (True, False):
        (got,) = run(program, {graph.inputs[0]: images}, reference)
        assert (
            np.abs(got - real).max() <= 0.08 * np.abs(real).max() + 3 * program.scales[graph.outputs[0]].scale
        )


def test_the_first_rule_that_matches_counts() -> None:
    net = inverted_residual()
    graph, _ = fuse(trace(net.fn, net.params, net.image))
    found = precisions(graph, {"b0/expand": 8, "b0/*": 16})
    assert {n for n, dtype in found.items() if dtype == "int16"} == {"b0/depthwise", "b0/project", "b0/add"}
    with pytest.raises(
        ValueError, match="precision rule 'b0/expnd' matches nothing; did you mean 'b0/expand'"
    ):
        precisions(graph, {"b0/expnd": 16})
    with pytest.raises(ValueError, match="'stem' asks for 4 bits; activations have 8 or 16"):
        precisions(graph, {"stem": 4})


def test_converts_stand_where_formats_meet_and_are_shared() -> None:
    net = inverted_residual()
    graph, _ = fuse(trace(net.fn, net.params, net.image))
    ranges = observe(graph, net.params, net.images())
    program = quantise(graph, net.params, ranges, bits={"b0/add": 16, "b1/expand": 16, "head": 16})
    made = {n.output: n.inputs for n in program.graph.nodes if n.op == "quantize"}
    assert made == {
        "stem/int16": ("stem",), "b0/project/int16": ("b0/project",), "b1/expand/int8": ("b1/expand",),
        "flat/int16": ("flat",),
    }  # fmt: skip
    assert program.dtype("image") == "int8"
    assert program.dtype("head") == "int16"
    assert program.integers["head"].bias.dtype == np.int64
    assert program.integers["b1/depthwise"].bias.dtype == np.int32
    whole = quantise(graph, net.params, ranges, bits={"*": 16})
    assert not [n for n in whole.graph.nodes if n.op == "quantize"]
    assert whole.dtype("image") == "int16"
    real = interpret_float(graph, net.params, net.images())
    sqnr = [
        sqnr_db(real, run(p, {"image": net.images()})[0])
        for p in (quantise(graph, net.params, ranges), program, whole)
    ]
    assert 25 < min(sqnr[:2]) < sqnr[0] + 3 < sqnr[2]


def graph_of(nodes: list[Node], *inputs: str) -> Graph:
    """Elementwise nodes on [1, 3, 3, 2], constants [2]; concats double the channels."""
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(inputs, (1, 3, 3, 2))
    for node in nodes:
        shape = shapes[node.inputs[0]] if node.inputs else (2,)
        shapes[node.output] = (*shape[:-1], 2 * shape[-1]) if node.op == "concat" else shape
    tensors = tuple(Tensor(n, s) for n, s in shapes.items())
    return Graph(tuple(nodes), tensors, inputs, (nodes[-1].output,))


IMAGE = {"x": np.random.default_rng(0).uniform(-3, 2, (4, 3, 3, 2)).astype(np.float32)}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("op", ["logistic", "tanh"])
def test_a_fixed_scale_that_meets_others_is_converted(op: Op, bits: int) -> None:
    graph = graph_of([Node(op, ("x",), "s"), Node("concat", ("s", "x"), "y", axis=3)], "x")
    program = quantise(graph, {}, observe(graph, {}, IMAGE["x"]), bits={"*": bits})
    holds_together(program)
    assert [n.output for n in program.graph.nodes] == ["s", f"s/int{bits}", "y"]
    np.testing.assert_allclose(
        run(program, IMAGE)[0], interpret_float(graph, {}, IMAGE["x"]), atol=1.5 * program.scales["y"].scale
    )


def test_a_fixed_scale_is_kept_where_it_can_be() -> None:
    moves = [
        Node("logistic", ("x",), "s"),
        Node("max_pool", ("s",), "p", window=(1, 1)),
        Node("concat", ("p", "s"), "y", axis=3),
    ]
    graph = graph_of(moves, "x")
    program = quantise(graph, {}, {"x": (-3.0, 2.0)})
    holds_together(program)
    assert program.graph.nodes == graph.nodes
    assert program.scales["y"] == Affine(1 / 256, -128)
    for value, kept in ((0.5, True), (0.3, False), (2.0, False)):
        pad = Node("pad", ("s",), "y", spans=((0, 0),) * 4, alpha=value)
        graph = graph_of([moves[0], pad], "x")
        program = quantise(graph, {}, {"x": (-3.0, 2.0), "y": (0.1, 0.9)})
        assert (program.scales["y"] == Affine(1 / 256, -128)) == kept
        assert abs(program.scales["y"].real(program.scales["y"].quantise(np.array(value))) - value) < 0.005
        (got,) = run(program, IMAGE)
        assert np.abs(got - interpret_float(graph, {}, IMAGE["x"])).max() < 0.01


def test_constants_are_repeated_in_the_formats_of_their_readers() -> None:
    nodes = [
        Node("constant", (), "c", kernel="c", kernel_shape=(2,)),
        Node("mul", ("x", "c"), "m"),
        Node("add", ("m", "c"), "y"),
    ]
    graph, params = graph_of(nodes, "x"), {"c": np.asarray([0.0, -0.7], np.float32)}
    ranges = {"x": (-3.0, 2.0), "m": (-2.0, 2.5), "y": (-3.0, 3.0)}
    program = quantise(graph, params, ranges, bits={"y": 16})
    assert [n.op for n in program.graph.nodes] == ["constant", "mul", "quantize", "constant", "add"]
    for name in ("c", "c/int16"):
        integers, scale = program.integers[name].kernel, program.scales[name]
        assert integers.dtype == scale.dtype
        assert integers[0] == scale.zero_point
        np.testing.assert_allclose(scale.real(integers), params["c"], atol=0.51 * scale.scale)
    np.testing.assert_allclose(run(program, IMAGE)[0], interpret_float(graph, params, IMAGE["x"]), atol=0.02)


def test_a_negated_tensor_is_centred() -> None:
    graph = graph_of([Node("neg", ("x",), "y")], "x")
    program = quantise(graph, {}, {"x": (-3.0, 2.0)})
    assert program.scales["x"] == program.scales["y"] == Affine(float(np.float32(3 / 127)), 0)
    np.testing.assert_allclose(run(program, IMAGE)[0], -IMAGE["x"], atol=0.02)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_dead_relu_runs(bits: int) -> None:
    nodes = [
        Node("conv", ("x",), "a", kernel="k", kernel_shape=(1, 1, 2, 2), bias="b", activation="relu"),
        Node("clamp", ("a",), "c", bounds=(0.0, 6.0)),
        Node("conv", ("c",), "d", kernel="k", kernel_shape=(1, 1, 2, 2)),
        Node("add", ("d", "x"), "y"),
    ]
    graph, params = graph_of(nodes, "x"), {"k": np.eye(2)[None, None], "b": np.full(2, -90.0)}
    ranges = observe(graph, params, IMAGE["x"])
    assert ranges["a"] == ranges["d"] == (0.0, 0.0)
    program = quantise(graph, params, ranges, bits={"*": bits})
    for reference in (True, False):
        np.testing.assert_allclose(run(program, IMAGE, reference)[0], IMAGE["x"], atol=0.02)
    widened = quantise(graph, params, {n: (low - 1, high + 1) for n, (low, high) in ranges.items()})
    assert widened.scales == tensor_scales(
        graph, {n: (low - 1, high + 1) for n, (low, high) in ranges.items()}
    )


def test_a_computed_kernel_is_refused() -> None:
    node = Node("dense", ("x", "k"), "y", kernel_shape=(2, 2))
    constant = Node("constant", (), "k", kernel="k", kernel_shape=(2, 2))
    tensors = (Tensor("x", (1, 2)), Tensor("k", (2, 2)), Tensor("y", (1, 2)))
    graph = Graph((constant, node), tensors, ("x",), ("y",))
    with pytest.raises(ValueError, match="kernel of 'y' is computed from weights; fold it"):
        quantise(graph, {"k": np.eye(2)}, {"x": (0.0, 1.0), "y": (0.0, 1.0)})
    named = replace(
        graph, nodes=(replace(node, inputs=("x",), kernel="k"),), tensors=(tensors[0], tensors[2])
    )
    program = quantise(named, {"k": np.eye(2)}, {"x": (0.0, 1.0), "y": (0.0, 1.0)})
    assert program.integers["y"].kernel.tolist() == [[127, 0], [0, 127]]
