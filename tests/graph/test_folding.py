"""Folds compute what they fold, for every layer and every form of a constant, and are refused where they would not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from research.graph.folding import fold_norm, step_of
from research.graph.interpret import interpret_float
from research.graph.ir import Graph
from research.graph.matching import BETWEEN, View
from research.graph.rewrite import optimise
from research.graph.weights import weights_of
from tests.graph.chains import IMAGE, Chain, named, rewritten
from tests.graph.samples import NHWC

LAYERS = {
    "conv": {}, "grouped": {"kernel_shape": (3, 3, 2, 6)}, "depthwise": {"kernel_shape": (3, 3, 1, 8)},
    "dense": {}, "transpose_conv": {"strides": (2, 2), "shape": (1, 12, 10, 4)},
}  # fmt: skip
FORMS = {"scalar": (), "one": (1,), "row": (0,), "image": (1, 1, 1, 0)}  # 0: the channels


def layer(c: Chain, x: str, kind: str, bias: bool = True, **more: object) -> str:
    return c.layer(x, "conv" if kind == "grouped" else kind, bias=bias, **{**LAYERS[kind], **more})


def constant(c: Chain, form: str, channels: int) -> np.ndarray:
    shape = tuple(channels if s == 0 else s for s in FORMS[form])
    return c.rng.uniform(0.4, 1.6, shape) * c.rng.choice([-1, 1], shape)


def agrees(graph: Graph, pattern: str) -> list[str]:
    """Operations after this pattern alone, having checked that the numbers stayed."""
    x = np.random.default_rng(7).normal(size=(2, *graph.shape("image")[1:])).astype(np.float32)
    result, params, _ = optimise(graph, {}, named(pattern))
    before, after = interpret_float(graph, {}, x), interpret_float(result, params, x)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    return [n.op for n in result.nodes if n.op != "constant"]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("op", ["mul", "div", "neg"])
def test_scales_fold_into_every_layer_before_them(kind: str, op: str) -> None:
    for number, form in enumerate(FORMS):
        c = Chain(seed=number)
        y = layer(c, "image", kind, bias=number % 2 == 0)
        value = constant(c, form, c.tensors[y].shape[-1])
        c.add("neg", y) if op == "neg" else c.step(op, y, value, activation="relu6")
        assert agrees(c.graph(), "fold_scale_after") == [c.graph().node_of(y).op]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("op", ["mul", "div", "neg"])
def test_scales_fold_into_every_layer_after_them(kind: str, op: str) -> None:
    for number, form in enumerate(FORMS):
        c = Chain(seed=number)
        x = c.add("neg", "image") if op == "neg" else c.step(op, "image", constant(c, form, 4))
        y = layer(c, x, kind, activation="relu")
        assert agrees(c.graph(), "fold_scale_before") == [c.graph().node_of(y).op]


@pytest.mark.parametrize("kind", LAYERS)
def test_shifts_fold_into_the_bias_of_the_layer_before_them(kind: str) -> None:
    for number, form in enumerate(FORMS):
        for op, bias in (("add", True), ("sub", True), ("sub", False)):
            c = Chain(seed=number)
            y = layer(c, "image", kind, bias=bias)
            c.step(op, y, constant(c, form, c.tensors[y].shape[-1]))
            assert agrees(c.graph(), "fold_shift_after") == [c.graph().node_of(y).op]
    c = Chain()
    c.step("add", c.layer("image", bias=False), np.ones(4))
    assert rewritten(c.graph(), "fold_shift_after")[0] == ["conv", "add"]  # that is fuse_bias


@pytest.mark.parametrize("kind", ["conv", "grouped", "depthwise", "dense"])
def test_shifts_fold_into_the_bias_of_the_layer_after_them(kind: str) -> None:
    for number, form in enumerate(FORMS):
        for op, bias in (("add", True), ("sub", False)):
            c = Chain(seed=number)
            y = layer(c, c.step(op, "image", constant(c, form, 4)), kind, bias=bias, padding="VALID")
            assert agrees(c.graph(), "fold_shift_before") == [c.graph().node_of(y).op]


def refusals(c: Chain, name: str) -> list[str]:
    _, applied, refused = rewritten(c.graph(), name)
    assert applied == ()
    return [r.reason for r in refused]


def test_a_shift_does_not_pass_zero_padding_nor_a_transposed_layer() -> None:
    c = Chain()
    c.layer(c.step("add", "image", 1.0))
    assert refusals(c, "fold_shift_before") == [
        "zero padding: at the border the layer sees zeros, not the constant"
    ]
    c = Chain()
    layer(c, c.step("add", "image", 1.0), "transpose_conv")
    assert refusals(c, "fold_shift_before") == ["its outputs do not all see the same weights"]


def test_folds_stop_at_activations_sites_forks_and_constants_that_vary() -> None:
    for name, op in (("fold_scale_after", "mul"), ("fold_shift_after", "sub")):
        for more, value, reason in (
            ({"activation": "relu"}, 2.0, "an activation lies between"),
            ({"site": True}, 2.0, BETWEEN),
            ({}, np.ones((6, 5, 4)), "its constant changes from pixel to pixel"),
        ):
            c = Chain()
            c.step(op, c.layer("image", **more), value)
            assert refusals(c, name) == [reason]
    c = Chain()
    y = c.step("mul", "image", 2.0)
    c.add("add", c.layer(y, "dense"), y)
    assert refusals(c, "fold_scale_before") == [BETWEEN]


def test_steps_read_constants_on_the_side_where_they_are_steps() -> None:
    c = Chain()
    tensors = {
        "x - 2": c.step("sub", "image", 2.0), "x / 4": c.step("div", "image", 4.0), "-x": c.add("neg", "image"),
        "3 x": c.add("mul", c.constant(3.0), "image"), "2 - x": c.add("sub", c.constant(2.0), "image"),
        "2 / x": c.add("div", c.constant(2.0), "image"), "x x": c.add("mul", "image", "image"),
        "wide": c.step("add", c.add("mean", "image", axes=(1, 2), shape=(1, 1, 1, 4)), np.ones((1, 6, 5, 4))),
    }  # fmt: skip
    graph = c.graph(*tensors.values())
    view = View(graph, weights_of(graph, {}).arrays)
    found = {name: step_of(view, graph.node_of(t)) for name, t in tensors.items()}
    assert {name: (s.kind, float(s.weight)) for name, s in found.items() if s} == {
        "x - 2": ("add", -2.0), "x / 4": ("mul", 0.25), "-x": ("mul", -1.0), "3 x": ("mul", 3.0),
    }  # fmt: skip


@given(
    st.lists(st.sampled_from(["add", "sub", "mul", "div", "neg"]), min_size=2, max_size=6), st.integers(0, 99)
)
def test_any_chain_of_constants_is_at_most_a_product_and_a_sum(ops: list[str], seed: int) -> None:
    c, x = Chain(seed=seed), "image"
    for op in ops:
        x = c.add("neg", x) if op == "neg" else c.step(op, x, constant(c, c.rng.choice(list(FORMS)), 4))
    after = agrees(c.graph(), "merge_constants")
    kinds = [{"sub": "add", "div": "mul", "neg": "mul"}.get(op, op) for op in ops]
    mixed = len(ops) > 2 or kinds[0] == kinds[1]
    assert after == ([op for op in ("mul", "add") if op in kinds] if mixed else ops)


def test_a_chain_stops_at_an_activation_and_at_a_fork() -> None:
    c = Chain()
    c.step("mul", c.step("mul", "image", 2.0, activation="relu"), 3.0)
    assert refusals(c, "merge_constants") == ["an activation lies between"]
    c = Chain()
    y = c.step("mul", "image", 2.0)
    c.add("add", c.step("mul", y, 3.0), y)
    assert refusals(c, "merge_constants") == [BETWEEN]


def test_constant_arithmetic_is_that_of_the_interpreter() -> None:
    c = Chain()
    var, scale = c.constant([0.5, 1.0, 2.0, 3.0]), c.constant(np.full((1, 1, 1, 4), 1.5))
    c.add("mul", "image", c.add("mul", scale, c.add("rsqrt", c.step("add", var, 1e-3))))
    graph = c.graph()
    x = np.random.default_rng(0).normal(size=IMAGE).astype(np.float32)
    result, params, _ = optimise(graph, {}, named("fold_constants"))
    assert [n.op for n in result.nodes] == ["constant", "mul"]
    assert np.array_equal(interpret_float(graph, {}, x), interpret_float(result, params, x))
    assert params["constant_0/kernel"].dtype == np.float32


def test_a_layer_on_a_constant_is_a_constant() -> None:
    c = Chain()
    c.add("add", "image", c.layer(c.constant(np.ones((1, 4))), "dense"))
    assert agrees(c.graph(), "fold_constants") == ["add"]


@given(st.sampled_from(["conv", "depthwise", "dense"]), st.integers(0, 10**6))
def test_folded_norms_compute_the_same(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    channels = 4
    scale, bias, mean = (rng.normal(size=channels).astype(np.float32) for _ in range(3))
    var = rng.uniform(0.05, 2, channels).astype(np.float32)
    shape = {"conv": (3, 3, 4, channels), "depthwise": (3, 3, 1, channels), "dense": (4, channels)}[kind]
    kernel = rng.normal(size=shape).astype(np.float32)
    x = rng.normal(size=(2, 5, 5, 4) if kind != "dense" else (6, 4)).astype(np.float32)

    def compute(k: np.ndarray) -> jax.Array:
        if kind == "dense":
            return jnp.asarray(x) @ k
        groups = channels if kind == "depthwise" else 1
        return lax.conv_general_dilated(
            x, k, (1, 1), "SAME", dimension_numbers=NHWC, feature_group_count=groups
        )

    def rows(v: np.ndarray) -> np.ndarray:
        return v.reshape((1,) * (x.ndim - 1) + (-1,))

    wanted = rows(scale) * (compute(kernel) - rows(mean)) / np.sqrt(rows(var) + 1e-3) + rows(bias)
    folded, shift = fold_norm(kernel, scale, bias, mean, var, 1e-3)
    np.testing.assert_allclose(compute(folded) + rows(shift), wanted, rtol=1e-5, atol=2e-5)
    again, _ = fold_norm(*(jnp.asarray(v) for v in (kernel, scale, bias, mean, var)), 1e-3)
    np.testing.assert_allclose(again, folded, rtol=1e-6)


def test_a_norm_of_another_width_is_refused() -> None:
    ones = np.ones(4)
    with pytest.raises(ValueError, match=r"mean has shape \(3,\), the kernel has 4"):
        fold_norm(np.ones((1, 1, 2, 4)), ones, ones, np.ones(3), ones, 1e-5)
