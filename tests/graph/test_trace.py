"""From functions to graphs: equal in value, equal in hash however they are spelled, refused with a reason."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from research.graph.interpret import interpret_float
from research.graph.ir import check
from research.graph.rewrite import fuse
from research.graph.trace import trace
from tests.graph.samples import NHWC, Net, conv, inverted_residual, networks, weights

LAYER = {
    "kernel": jax.ShapeDtypeStruct((3, 3, 2, 4), jnp.float32),
    "bias": jax.ShapeDtypeStruct((4,), jnp.float32),
}
IMAGE = jax.ShapeDtypeStruct((1, 8, 8, 2), jnp.float32)


@settings(max_examples=20)
@given(networks)
def test_the_graph_computes_what_the_function_does(net: Net) -> None:
    graph = trace(net.fn, net.params, net.image)
    check(graph)
    images = net.images()
    np.testing.assert_allclose(
        interpret_float(graph, net.params, images), net.fn(net.params, images), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("size", [15, 16, 17])
def test_a_whole_network_with_odd_and_even_sizes(size: int) -> None:
    net = inverted_residual(size)
    graph = trace(net.fn, net.params, net.image)
    images = net.images()
    np.testing.assert_allclose(
        interpret_float(graph, net.params, images), net.fn(net.params, images), rtol=1e-5, atol=1e-5
    )
    sites = {t.name for t in graph.tensors if t.site}
    assert sites == {"image", "stem", "b0/add", "flat", "head"} | {
        f"b{i}/{unit}" for i in (0, 1) for unit in ("expand", "depthwise", "project")
    }


class Linen(nn.Module):
    """Flax layers, folded norms: conv, depthwise, pools, mean, dense."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu6(nn.Conv(6, (3, 3), (2, 2), name="stem")(x))
        x = nn.relu(nn.Conv(6, (3, 3), feature_group_count=6, padding="VALID", name="deep")(x))
        x = nn.avg_pool(x, (3, 3), (2, 2), "SAME", count_include_pad=False)
        x = nn.max_pool(x, (2, 2), (1, 1), "SAME")
        x = nn.remat(nn.Conv)(5, (1, 1), name="point")(x)
        x = checkpoint_name(x.mean((1, 2), keepdims=True), "mean")
        return nn.Dense(3, name="head")(x.reshape(x.shape[0], -1))


def test_flax_modules_trace_from_shapes_alone() -> None:
    image = jax.ShapeDtypeStruct((1, 17, 16, 2), jnp.float32)
    shapes = jax.eval_shape(Linen().init, jax.random.key(0), image)["params"]
    graph = trace(lambda p, x: Linen().apply({"params": p}, x), shapes, image)
    assert [n.op for n in fuse(graph)[0].nodes] == [
        "conv", "depthwise", "avg_pool", "max_pool", "conv", "mean", "reshape", "dense"
    ]  # fmt: skip
    assert graph.node_of("mean").op == "mean"
    assert graph.shape("mean") == (1, 1, 1, 5)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    images = rng.uniform(size=(3, 17, 16, 2)).astype(np.float32)
    np.testing.assert_allclose(
        interpret_float(graph, params, images),
        Linen().apply({"params": params}, images),
        rtol=1e-5,
        atol=1e-5,
    )


RELU6 = {
    "jax.nn.relu6": jax.nn.relu6,
    "jnp.clip": lambda x: jnp.clip(x, 0, 6),
    "jnp.clip of floats": lambda x: jnp.clip(x, 0.0, 6.0),
    "min of max": lambda x: jnp.minimum(jnp.maximum(x, 0), 6),
    "max of min": lambda x: jnp.maximum(jnp.minimum(6.0, x), 0.0),
    "lax.clamp": lambda x: lax.clamp(0.0, x, 6.0),
    "relu first": lambda x: jnp.minimum(jax.nn.relu(x), 6.0),
    "twice": lambda x: jax.nn.relu6(jnp.clip(x, 0, 6)),
    "jitted": jax.jit(jax.nn.relu6),
    "rematerialised": jax.checkpoint(lambda x: jnp.clip(x, 0, 6)),
}


@pytest.mark.parametrize("spelling", RELU6)
def test_relu6_has_one_graph_however_it_is_spelled(spelling: str) -> None:
    first = trace(lambda p, x: jax.nn.relu6(conv(p, x)), LAYER, IMAGE)
    other = trace(lambda p, x: RELU6[spelling](conv(p, x)), LAYER, IMAGE)
    assert other.hash == first.hash
    assert fuse(other)[0].nodes[0].activation == "relu6"
    assert trace(lambda p, x: jax.nn.relu(conv(p, x)), LAYER, IMAGE).hash != first.hash


def test_other_spellings_of_one_computation() -> None:
    def hashes(*functions: object) -> int:
        return len({trace(f, LAYER, IMAGE).hash for f in functions})

    assert hashes(
        lambda p, x: conv(p, x),
        lambda p, x: jnp.reshape(p["bias"], (1, 1, 1, 4)) + conv(without_bias(p), x),
        lambda p, x: conv(without_bias(p), x) + jnp.broadcast_to(p["bias"], (1, 8, 8, 4)),
    ) == 1  # fmt: skip
    assert hashes(
        lambda p, x: jnp.mean(x, (1, 2)),
        lambda p, x: x.sum((1, 2)) / 64,
        lambda p, x: x.sum((1, 2)) * (1 / 64),
        lambda p, x: jnp.mean(x, (1, 2), keepdims=True).squeeze((1, 2)),
    ) == 1  # fmt: skip
    assert hashes(lambda p, x: conv(p, x) + conv(p, x) * 1.0, lambda p, x: conv(p, x) + conv(p, x)) == 1


def without_bias(layer: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The layer with a zero bias, which the graph leaves out."""
    return {"kernel": layer["kernel"], "bias": jnp.zeros(4)}


def test_a_pointwise_product_is_a_conv() -> None:
    kernel = {"kernel": jax.ShapeDtypeStruct((1, 1, 2, 4), jnp.float32)}
    spelled = trace(lambda p, x: x @ p["kernel"].reshape(2, 4), kernel, IMAGE)
    plain = trace(
        lambda p, x: lax.conv_general_dilated(x, p["kernel"], (1, 1), "VALID", dimension_numbers=NHWC),
        kernel,
        IMAGE,
    )
    assert spelled.hash == plain.hash


def test_dead_code_and_unused_parameters_leave_no_trace() -> None:
    def fn(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        conv(p, x)
        checkpoint_name(jax.nn.relu(x), "unused")
        return jax.nn.relu(x)

    graph = trace(fn, LAYER, IMAGE)
    assert [n.op for n in graph.nodes] == ["clamp"]
    assert [t.name for t in graph.tensors] == ["input_0", "clamp_0"]


def test_weights_that_are_closed_over_become_constants() -> None:
    layer = weights(np.random.default_rng(0), 3, 3, 2, 4)
    graph = trace(lambda p, x: conv(jax.tree.map(jnp.asarray, layer), x), {}, IMAGE)
    assert len(graph.constants) == 2
    images = np.random.default_rng(1).uniform(size=(2, 8, 8, 2)).astype(np.float32)
    np.testing.assert_allclose(interpret_float(graph, {}, images), conv(layer, images), rtol=1e-5, atol=1e-5)


def test_unnamed_tensors_are_numbered_around_the_sites() -> None:
    graph = trace(lambda p, x: checkpoint_name(jax.nn.relu(conv(p, x)), "conv_0"), LAYER, IMAGE)
    assert [n.output for n in graph.nodes] == ["conv_0_", "bias_1", "conv_0"]


def twice(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return checkpoint_name(checkpoint_name(x, "a"), "b")


def shared(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return checkpoint_name(jax.nn.relu(checkpoint_name(x, "a")), "a")


def strided(padding: object) -> object:
    return lambda p, x: lax.conv_general_dilated(x, p["kernel"], (2, 2), padding, dimension_numbers=NHWC)


REFUSED = {
    "tanh": (lambda p, x: jnp.tanh(x), "use relu or relu6"),
    "mul": (lambda p, x: x * 2.0, "fold"),
    "mul of a weight": (lambda p, x: conv({**p, "kernel": p["kernel"] * 0.5}, x), "fold"),
    "transpose": (lambda p, x: x.transpose(0, 3, 1, 2), "NHWC"),
    "scan": (lambda p, x: lax.scan(lambda c, _: (jax.nn.relu(c), None), x, length=2)[0], "Python loop"),
    "conv_general_dilated": (strided(((1, 1), (1, 1))), "SAME"),
    "reduce_sum": (lambda p, x: x.sum(3), "mean over H and W"),
    "add": (lambda p, x: x + jnp.arange(8.0)[None, :, None, None], "bias"),
    "max": (lambda p, x: jnp.maximum(conv(p, x), jax.nn.relu(conv(p, x))), "one constant number"),
    "slice": (lambda p, x: x[:, :4], "use conv"),
    "name": (twice, "both 'a' and 'b'"),
    "name of two": (shared, "'a' names two tensors"),
    "dot_general": (lambda p, x: jnp.einsum("nhwc,hwcd->nd", x, jnp.ones((8, 8, 2, 4))), "x @ kernel"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_graph_cannot_say_is_refused_with_place_and_advice(case: str) -> None:
    fn, advice = REFUSED[case]
    with pytest.raises(ValueError, match="cannot trace") as error:
        trace(fn, LAYER, IMAGE)
    message = str(error.value)
    assert advice in message
    assert "\n" not in message
    assert "test_trace.py:" in message or "samples.py:" in message


def test_the_function_must_use_one_image() -> None:
    with pytest.raises(ValueError, match="one image"):
        trace(lambda p, x: x, LAYER, jax.ShapeDtypeStruct((2, 8, 8, 2), jnp.float32))
    with pytest.raises(ValueError, match="does not depend on the image"):
        trace(lambda p, x: p["bias"], LAYER, IMAGE)
    with pytest.raises(ValueError, match="divided by its count"):
        trace(lambda p, x: x.sum((1, 2)), LAYER, IMAGE)
