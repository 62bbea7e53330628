"""Number by number: every spelling gives its one list of nodes and the function's own values."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from research.graph.arithmetic import arithmetic, divide, multiply
from research.graph.trace import trace
from research.graph.values import Draft, Value, Weight
from tests.graph.samples import agreed, ops

SHAPE = (1, 3, 5, 4)
IMAGE = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
ROW = jnp.arange(4.0)[None, None, None, :]
MEAN = lambda x: x.mean((1, 2), keepdims=True)  # noqa: E731

SPELLED: dict[str, tuple[Any, list[str]]] = {
    "add a number": (lambda x: x + 1.0, ["add"]),
    "add nothing": (lambda x: jax.nn.relu(x + 0.0), ["clamp"]),
    "add a row": (lambda x: x + ROW, ["add"]),
    "add a column": (lambda x: x + jnp.arange(3.0)[None, :, None, None], ["add"]),
    "add every pixel its own": (lambda x: x + jnp.arange(60.0).reshape(SHAPE), ["add"]),
    "subtract from a number": (lambda x: 1 - x, ["sub"]),
    "subtract a number": (lambda x: x - 2.0, ["sub"]),
    "multiply": (lambda x: 2.0 * x, ["mul"]),
    "multiply by one": (lambda x: jax.nn.relu(1.0 * x), ["clamp"]),
    "divide by a number": (lambda x: x / 3.0, ["mul"]),
    "divide a number": (lambda x: 1.0 / (x + 3.0), ["add", "div"]),
    "two tensors": (lambda x: (x + MEAN(x)) * (x - MEAN(x)), ["mean", "add", "mean", "sub", "mul"]),
    "quotient": (lambda x: x / (jnp.abs(x) + 1.0), ["abs", "add", "div"]),
    "extremes": (lambda x: (jnp.maximum(x, -x), jnp.minimum(x, ROW)), ["neg", "maximum", "minimum"]),
    "clip to arrays": (lambda x: jnp.clip(x, -ROW, 1.0), ["maximum", "clamp"]),
    "square": (lambda x: (x**2, jnp.square(x), x * x), ["square", "square", "mul"]),
    "powers": (lambda x: (x**3, (x + 3) ** -1), ["mul", "mul", "add", "div"]),
    "roots": (
        lambda x: [f(x + 3) for f in (jnp.sqrt, lax.rsqrt, lambda y: y**0.5, lambda y: y**-0.5)],
        ["add", "sqrt", "add", "rsqrt", "add", "sqrt", "add", "rsqrt"],
    ),
    "functions": (lambda x: (jnp.exp(x), -x, jnp.abs(x)), ["exp", "neg", "abs"]),
    "sigmoid": (jax.nn.sigmoid, ["logistic"]),
    "tanh": (jnp.tanh, ["tanh"]),
    "silu": (jax.nn.silu, ["logistic", "mul"]),
    "gelu": (jax.nn.gelu, ["mul", "mul", "mul", "add", "mul", "tanh", "add", "mul", "mul"]),
    "hard sigmoid": (jax.nn.hard_sigmoid, ["add", "clamp", "mul"]),
    "leaky relu": (jax.nn.leaky_relu, ["leaky_relu"]),
    "leaky relu by hand": (lambda x: jnp.where(x > 0, x, x * 0.3), ["leaky_relu"]),
    "leaky relu, turned": (lambda x: jnp.where(x < 0, 0.3 * x, x), ["leaky_relu"]),
    "PReLU by hand": (lambda x: jnp.where(x >= 0, x, x * ROW), ["prelu"]),
    "relu by where": (lambda x: jnp.where(x > 0, x, 0), ["clamp"]),
    "ceiling by where": (lambda x: jnp.where(x < 1.5, x, 1.5), ["clamp"]),
    "known mask": (lambda x: jnp.where(ROW > 1, x, -1e3), ["mul", "add"]),
    "uniform mask": (lambda x: jnp.where(jnp.ones(SHAPE, bool), -x, 2 * x), ["neg"]),
    "softmax": (jax.nn.softmax, ["softmax"]),
    "softmax of rows": (lambda x: jax.nn.softmax(x, 1), ["transpose", "softmax", "transpose"]),
    "softmax by hand": (lambda x: (lambda e: e / e.sum(-1, keepdims=True))(jnp.exp(x)), ["softmax"]),
    "scaled softmax": (lambda x: jax.nn.softmax(x * 0.5), ["mul", "softmax"]),
    "softmax over two axes": (
        lambda x: jax.nn.softmax(x, (1, 2)), ["max_pool", "sub", "exp", "mean", "mul", "div"]
    ),
    "repeated tensors broadcast": (lambda x: x * jnp.broadcast_to(MEAN(x), x.shape), ["mean", "mul"]),
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLED)
def test_a_spelling_has_its_nodes_and_values(spelling: str) -> None:
    fn, wanted = SPELLED[spelling]
    assert ops(agreed(lambda p, x: fn(x), {}, SHAPE)) == wanted


LAYER_NORM = ["square", "mean", "mean", "square", "sub", "clamp", "reshape", "reshape", "sub"]


@pytest.mark.parametrize(
    ("module", "wanted"),
    [
        (nn.PReLU(), ["prelu"]),
        (nn.BatchNorm(use_running_average=True), ["sub", "add", "rsqrt", "mul", "mul", "add"]),
        (nn.RMSNorm(), ["square", "mean", "add", "rsqrt", "mul", "mul"]),
        (nn.LayerNorm(), [*LAYER_NORM, "add", "rsqrt", "mul", "mul", "add"]),
    ],
)
def test_modules_of_parameters(module: nn.Module, wanted: list[str]) -> None:
    params = jax.eval_shape(module.init, jax.random.key(0), IMAGE)
    graph = agreed(module.apply, params, SHAPE)
    assert ops(graph) == wanted
    assert {n.kernel for n in graph.nodes if n.op == "constant" and "/" in str(n.kernel)} >= {
        f"{collection}/{name}" for collection in params for name in params[collection]
    }


def test_group_norm_repeats_its_groups() -> None:
    module = nn.GroupNorm(2)
    agreed(module.apply, jax.eval_shape(module.init, jax.random.key(0), IMAGE), SHAPE)


def test_what_parameters_alone_make_is_nodes_on_constants() -> None:
    params = {"mask": np.ones(4), "scale": np.ones(4), "all": np.ones(())}
    graph = agreed(lambda p, x: x * (p["mask"] * jnp.sqrt(p["scale"]))[None, None, None, :], params, SHAPE)
    assert ops(graph) == ["sqrt", "mul", "reshape", "mul"]
    assert graph.nodes[-1].inputs[0] == "input_0", "what is fixed comes last"
    assert ops(agreed(lambda p, x: x * p["all"], params, SHAPE)) == ["mul"]


def test_order_of_operands_is_canonical() -> None:
    def hashes(*functions: Any) -> int:
        return len({trace(f, {"b": np.ones(4)}, IMAGE).hash for f in functions})

    b = lambda p: p["b"][None, None, None, :]  # noqa: E731
    assert hashes(lambda p, x: x + b(p), lambda p, x: b(p) + x) == 1
    for op in (jnp.add, jnp.multiply, jnp.maximum, jnp.minimum):
        assert hashes(lambda p, x, op=op: op(jnp.exp(x), x), lambda p, x, op=op: op(x, jnp.exp(x))) == 1
    assert hashes(lambda p, x: x - b(p), lambda p, x: b(p) - x) == 2
    assert hashes(lambda p, x: jnp.exp(x) / x, lambda p, x: x / jnp.exp(x)) == 2


def test_constants_take_the_least_shape_that_broadcasts() -> None:
    shapes = {
        (1,): jnp.asarray(2.0), (4,): jnp.broadcast_to(ROW, SHAPE), (3, 1, 1): jnp.arange(3.0)[None, :, None, None],
        (3, 5, 4): jnp.arange(60.0).reshape(SHAPE),
    }  # fmt: skip
    for shape, value in shapes.items():
        graph = trace(lambda p, x, value=value: x * value, {}, IMAGE)
        assert graph.nodes[0].kernel_shape == graph.shape(graph.nodes[0].output) == shape
    wide = agreed(lambda p, x: MEAN(x) + jnp.full(SHAPE, 2.0), {}, SHAPE)
    assert wide.shape(wide.outputs[0]) == SHAPE, "a constant that repeats the tensor keeps its axes"


def test_sums_are_means_times_their_count() -> None:
    draft = Draft()
    total = Value(draft.new_tensor((1, 4)), np.asarray(15.0))
    assert divide(draft, total, np.asarray(15.0)).settled
    assert multiply(draft, np.asarray(0.2), total).factor == 3.0
    assert draft.nodes == {}
    once, again = draft.read(total), draft.read(total)
    assert once == again, "the factor of a sum is multiplied in once"
    assert [n.op for n in draft.nodes.values()] == ["constant", "mul"]
    assert ops(agreed(lambda p, x: (x.sum(3), x.sum((1, 2)) / 15), {}, SHAPE)) == ["mean", "mean", "mul"]


def test_arithmetic_of_a_parameter_reads_it_as_it_is_seen() -> None:
    draft = Draft()
    product = arithmetic(draft, "mul", Weight("w", 4, (1, 1, 1, 4)), np.asarray(2.0))
    assert draft.shape(product) == (1, 1, 1, 4)
    assert product.tensor in draft.fixed
    assert [n.kernel_shape for n in draft.nodes.values() if n.kernel == "w"][-1] == (1, 1, 1, 4)


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (lambda x: jnp.where(x > 1, x * 2, x * 3), "chooses between tensors"),
        (lambda x: jnp.where(x > x.mean(), x, 0), "other than one constant number"),
        (lambda x: x**1.5, "power 1.5"),
        (lambda x: jnp.where(ROW > 1, x, -jnp.inf), "not finite"),
        (lambda x: (x > 0) * 1.0, "comparison into float32"),
        (lambda x: x > 0, "reads a comparison"),
        (jax.nn.log_softmax, "'log'"),
        (lambda x: jnp.power(2.0, x), "'pow'"),
    ],
)
def test_equations_outside_the_graph_say_why(fn: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        trace(lambda p, x: fn(x), {}, IMAGE)
