"""Rules for single equations: sums become means, pools count their pixels, everything else says why not."""

from math import inf

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from research.graph.interpret import interpret_float
from research.graph.primitives import RULES, tensor_of
from research.graph.trace import CALLS, trace
from research.graph.values import Draft, Value, Weight

IMAGE = jax.ShapeDtypeStruct((1, 7, 6, 2), jnp.float32)


def test_an_operand_must_be_a_finished_tensor() -> None:
    assert tensor_of(Value("x")) == "x"
    for value, says in (
        (Weight("a", 3, (3,)), "weight or constant"),
        (np.ones(3), "weight or constant"),
        (Value("x", np.asarray(4.0)), "divided by its count"),
    ):
        with pytest.raises(ValueError, match=says):
            tensor_of(value)


def test_no_call_is_also_a_rule() -> None:
    assert not CALLS & RULES.keys()


def test_bounds_land_on_the_side_they_came_from() -> None:
    draft = Draft()
    x = Value(draft.new_tensor((1, 3)))
    for name, operands, bounds in (
        ("max", [x, np.asarray(2.0)], (2.0, inf)),
        ("max", [np.asarray(2.0), x], (2.0, inf)),
        ("min", [x, np.asarray(2.0)], (-inf, 2.0)),
        ("clamp", [np.asarray(-1.0), x, np.asarray(2.0)], (-1.0, 2.0)),
    ):
        assert draft.nodes[RULES[name](draft, operands, {}).tensor].bounds == bounds


def average(window: int, stride: int, padding: str, real_pixels: bool) -> object:
    sizes = (1, window, window, 1), (1, stride, stride, 1), padding

    def fn(p: object, x: jax.Array) -> jax.Array:
        total = lax.reduce_window(x, 0.0, lax.add, *sizes)
        if not real_pixels:
            return total / window**2
        return total / lax.reduce_window(jnp.ones((1, *x.shape[1:3], 1)), 0.0, lax.add, *sizes)

    return fn


@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_a_window_sum_over_its_pixels_is_an_average_pool(window: int, stride: int, padding: str) -> None:
    fn = average(window, stride, padding, real_pixels=True)
    graph = trace(fn, {}, IMAGE)
    assert [n.op for n in graph.nodes] == ["avg_pool"]
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 2)).astype(np.float32)
    np.testing.assert_allclose(interpret_float(graph, {}, x), fn({}, x), rtol=1e-5, atol=1e-6)


def test_an_average_that_counts_padding_is_not_one() -> None:
    assert trace(average(2, 2, "VALID", real_pixels=False), {}, IMAGE).nodes[0].op == "avg_pool"
    with pytest.raises(ValueError, match="divided by its count"):
        trace(average(3, 1, "SAME", real_pixels=False), {}, IMAGE)


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (lambda p, x: lax.conv_general_dilated(x, jnp.ones((3, 7, 2, 1)), (1, 1), "SAME"), "NHWC"),
        (lambda p, x: 1.0 / x, "divides by a tensor"),
        (lambda p, x: x * x, "other than a constant"),
        (lambda p, x: x.astype(jnp.int32), "turns a tensor into int32"),
        (lambda p, x: jnp.broadcast_to(x, (3, 7, 6, 2)), "repeats"),
        (lambda p, x: lax.reshape(x, (84,), (3, 2, 1, 0)), "permutes"),
        (lambda p, x: x.reshape(1, 84, 1) @ jnp.ones((1, 2)), r"\[N, H, W, in\]"),
        (
            lambda p, x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 1, 2), (1, 1, 1, 2), "SAME"),
            "plain pool",
        ),
        (lambda p, x: x + jnp.ones((4, 7, 6, 2)), "repeats"),
    ],
)
def test_equations_outside_the_graph_say_why(fn: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        trace(fn, {}, IMAGE)


@pytest.mark.parametrize(("groups", "out", "says"), [(2, 4, "2 groups"), (4, 8, "several channels from one")])
def test_grouped_convolutions_other_than_depthwise(groups: int, out: int, says: str) -> None:
    def fn(p: object, x: jax.Array) -> jax.Array:
        kernel = jnp.ones((3, 3, 4 // groups, out))
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )

    with pytest.raises(ValueError, match=says):
        trace(fn, {}, jax.ShapeDtypeStruct((1, 5, 5, 4), jnp.float32))


def test_dilated_convolutions_keep_their_dilation() -> None:
    kernel = {"k": np.random.default_rng(0).normal(size=(3, 3, 2, 2)).astype(np.float32)}

    def fn(p: dict[str, np.ndarray], x: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x, p["k"], (1, 1), "SAME", rhs_dilation=(2, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    graph = trace(fn, kernel, IMAGE)
    assert graph.nodes[0].dilation == (2, 2)
    assert graph.nodes[0].padding == "SAME"
    x = np.random.default_rng(1).normal(size=(1, 7, 6, 2)).astype(np.float32)
    np.testing.assert_allclose(interpret_float(graph, kernel, x), fn(kernel, x), rtol=1e-5, atol=1e-5)
