"""From functions to graphs: equal in value, equal in hash however they are spelled, refused with a reason."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from research.graph.interpret import interpret_float, site_values
from research.graph.ir import check
from research.graph.rewrite import fuse
from research.graph.trace import ADVICE, CALLS, trace
from research.nets.formulation import CANONICAL, SHIFTED, depthwise
from research.nets.handnet import Block, HandNet
from research.nets.layers import HandModule
from tests.graph.samples import Net, agreed, conv, inverted_residual, networks, ops, weights

LAYER = {
    "kernel": jax.ShapeDtypeStruct((3, 3, 2, 4), jnp.float32),
    "bias": jax.ShapeDtypeStruct((4,), jnp.float32),
}
IMAGE = jax.ShapeDtypeStruct((1, 8, 8, 2), jnp.float32)


@settings(max_examples=12)
@given(networks)
def test_the_graph_computes_what_the_function_does(net: Net) -> None:
    check(agreed(net.fn, net.params, net.shape))


STEPS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu, "silu": jax.nn.silu, "softmax": jax.nn.softmax, "turn": lambda x: x.swapaxes(1, -1),
    "leaky": jax.nn.leaky_relu, "1 - x": lambda x: 1 - x, "twice": lambda x: x + x, "power": lambda x: x**2 / 4,
    "softmax of rows": lambda x: jax.nn.softmax(x, 1), "mean": lambda x: x.mean(-1, keepdims=True),
    "sum": lambda x: x.sum(1, keepdims=True) / 3, "flatten": lambda x: x.reshape(x.shape[0], 1, -1),
    "largest": lambda x: x.max(-1, keepdims=True), "expand": lambda x: x[:, None], "drop": lambda x: x[..., 0, :],
    "half": lambda x: x[:, ::2], "flip": lambda x: x[..., ::-1], "join": lambda x: jnp.concatenate([x, -x], -1),
    "gram": lambda x: jax.nn.softmax(x @ x.swapaxes(-1, -2)), "attend": lambda x: x @ x.swapaxes(-1, -2) @ x / 9,
    "repeat": lambda x: jnp.repeat(x, 2, -1),
    "centre": lambda x: x - jnp.broadcast_to(x.mean(-1, keepdims=True), x.shape),
    "pad": lambda x: jnp.pad(x, [(0, 0)] + [(1, 0)] * (x.ndim - 1)), "stack": lambda x: jnp.stack([x, 2 * x], 1),
    "dense": lambda x: x @ jnp.asarray(np.random.default_rng(0).normal(size=(x.shape[-1], 3)), jnp.float32),
    "normal": lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1),
}  # fmt: skip


@settings(max_examples=15)
@given(
    st.lists(st.sampled_from(sorted(STEPS)), min_size=2, max_size=5),
    st.sampled_from([(1, 4, 6, 3), (1, 5, 4), (1, 1, 6, 2)]),
)
def test_any_chain_of_steps_is_what_it_computes(steps: list[str], shape: tuple[int, ...]) -> None:
    def fn(p: object, x: jax.Array) -> jax.Array:
        for step in steps:
            x = STEPS[step](x) if x.ndim > 2 or step not in ("drop", "gram", "attend") else x
        return x

    agreed(fn, {}, shape)


@pytest.mark.parametrize("size", [15, 16, 17])
def test_a_whole_network_with_odd_and_even_sizes(size: int) -> None:
    net = inverted_residual(size)
    graph = agreed(net.fn, net.params, net.shape)
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
    graph = agreed(lambda p, x: Linen().apply({"params": p}, x), shapes, image.shape)
    assert [n.op for n in fuse(graph)[0].nodes] == [
        "conv", "depthwise", "avg_pool", "max_pool", "conv", "mean", "reshape", "dense"
    ]  # fmt: skip
    assert graph.node_of("mean").op == "mean"
    assert graph.shape("mean") == (1, 1, 1, 5)


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
        lambda p, x: jax.jit(lambda y: jax.checkpoint(lambda z: z.mean((1, 2)))(y))(x),
    ) == 1  # fmt: skip
    assert hashes(lambda p, x: conv(p, x) + conv(p, x) * 1.0, lambda p, x: conv(p, x) + conv(p, x)) == 1


def without_bias(layer: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The layer with a zero bias, which the graph leaves out."""
    return {"kernel": layer["kernel"], "bias": jnp.zeros(4)}


def test_a_pointwise_product_is_a_dense_layer_however_it_is_spelled() -> None:
    kernel = {"kernel": jax.ShapeDtypeStruct((2, 4), jnp.float32)}
    spellings = (
        lambda p, x: x @ p["kernel"],
        lambda p, x: jnp.einsum("nhwc,co->nhwo", x, p["kernel"]),
        lambda p, x: nn.Dense(4, use_bias=False).apply({"params": p}, x),
    )
    graphs = [trace(fn, kernel, IMAGE) for fn in spellings]
    assert len({graph.hash for graph in graphs}) == 1
    assert ops(graphs[0]) == ["dense"]


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
    assert [n.output for n in graph.nodes] == ["conv_0_", "constant_1", "add_2", "conv_0"]


def twice(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return checkpoint_name(checkpoint_name(x, "a"), "b")


def shared(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return checkpoint_name(jax.nn.relu(checkpoint_name(x, "a")), "a")


def a_loop(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return lax.while_loop(lambda c: c.sum() < 3, lambda c: c + 1, x)


def noise(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x * jax.random.normal(jax.random.key(0), x.shape)


def no_default(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return lax.platform_dependent(x, cpu=lambda y: y * 2, tpu=lambda y: y + y)


REFUSED = {
    "scan": (lambda p, x: lax.scan(lambda c, _: (jax.nn.relu(c), None), x, length=2)[0], "Python loop"),
    "while": (a_loop, "Python loop"),
    "convert_element_type of cond": (lambda p, x: lax.cond(x[0, 0, 0, 0] > 0, jnp.exp, jnp.abs, x), "int32"),
    "platform_index": (no_default, "a default"),
    "sort": (lambda p, x: jnp.sort(x), "after the network"),
    "gather": (lambda p, x: jnp.take(x, jnp.array([1, 0]), -1), "slices"),
    "scatter": (lambda p, x: x.at[:, 0].set(0), "concatenate"),
    "erf": (lambda p, x: lax.erf(x), "approximate=True"),
    "erfc": (lambda p, x: jax.nn.gelu(x, approximate=False), "approximate=True"),
    "convert_element_type": (lambda p, x: x.astype(jnp.int32), "float32"),
    "round": (lambda p, x: jnp.round(x), "quantisation comes after"),
    "complex": (lambda p, x: lax.complex(x, x), "as channels"),
    "convert_element_type of fft": (lambda p, x: jnp.fft.fft(x).real, "complex64"),
    "expm1": (lambda p, x: jax.nn.elu(x), "leaky_relu"),
    "select_n": (lambda p, x: jnp.where(x > 1, x * 2, x * 3), "mask known"),
    "conv_general_dilated": (lambda p, x: conv({**p, "kernel": x[0, :3, :3, :, None]}, x), "its own kernel"),
    "random_seed": (noise, "deterministic=True"),
    "name": (twice, "both 'a' and 'b'"),
    "name of two": (shared, "'a' names two tensors"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_graph_cannot_say_is_refused_with_place_and_advice(case: str) -> None:
    fn, advice = REFUSED[case]
    with pytest.raises(ValueError, match=f"cannot trace '{case.split()[0]}'") as error:
        trace(fn, LAYER, IMAGE)
    message = str(error.value)
    assert advice in message
    assert message.count("cannot trace") == 1
    assert "\n" not in message
    assert "test_trace.py:" in message or "samples.py:" in message


def test_advice_is_for_what_is_refused() -> None:
    assert not ADVICE.keys() & (CALLS - {"jit"}), "calls are walked"
    assert all(advice and not advice.endswith(".") for advice in ADVICE.values())


def test_the_function_must_use_one_image() -> None:
    with pytest.raises(ValueError, match="one image"):
        trace(lambda p, x: x, LAYER, jax.ShapeDtypeStruct((2, 8, 8, 2), jnp.float32))
    for still in (lambda p, x: p["bias"], lambda p, x: jnp.abs(p["bias"]) + 1, lambda p, x: jnp.ones(3)):
        with pytest.raises(ValueError, match="does not depend on the image"):
            trace(still, LAYER, IMAGE)


def test_a_sum_is_a_mean_times_its_count() -> None:
    assert ops(agreed(lambda p, x: x.sum((1, 2)), {}, IMAGE.shape)) == ["mean", "mul"]


def test_several_images_and_several_outputs() -> None:
    def fn(p: dict[str, jax.Array], images: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
        left, right = images
        return {"sum": conv(p, left) + jax.nn.relu(right), "features": right}

    right = jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.float32)
    graph = trace(fn, LAYER, (IMAGE, right))
    assert graph.inputs == ("input_0", "input_1")
    assert graph.outputs == ("input_1", graph.nodes[-1].output)
    rng = np.random.default_rng(0)
    pair = [rng.normal(size=(3, *s.shape[1:])).astype(np.float32) for s in (IMAGE, right)]
    params = weights(rng, 3, 3, 2, 4)
    wanted = fn(params, pair)
    values = site_values(graph, params, pair)
    for name, truth in zip(graph.outputs, (wanted["features"], wanted["sum"]), strict=True):
        np.testing.assert_allclose(values[name], truth, rtol=1e-5, atol=1e-5)


class Ladder(nn.Module):
    """A bit of everything new: batch norm, squeeze and excite, hard swish, transposed conv, skip, upsampling."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = jax.nn.hard_swish(nn.BatchNorm(use_running_average=True)(nn.Conv(8, (3, 3), (2, 2))(x)))
        gate = nn.Conv(8, (1, 1))(jax.nn.relu(nn.Conv(2, (1, 1))(x.mean((1, 2), keepdims=True))))
        x = x * jax.nn.hard_sigmoid(gate)
        deep = jax.nn.silu(nn.Conv(16, (3, 3), (2, 2), feature_group_count=8)(x))
        wide = jax.image.resize(deep, (x.shape[0], 8, 8, 16), "bilinear")
        up = nn.ConvTranspose(8, (2, 2), (2, 2))(deep)
        heat = nn.Conv(3, (1, 1))(jnp.concatenate([x, wide, up], -1))
        weight = jax.nn.softmax(heat.reshape(heat.shape[0], 64, 3), 1)
        return (weight * jnp.linspace(0.0, 1.0, 64)[None, :, None]).sum(1), jax.nn.sigmoid(heat)


def test_a_network_of_our_time() -> None:
    image = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    params = jax.eval_shape(Ladder().init, jax.random.key(0), image)
    graph = agreed(Ladder().apply, params, image.shape)
    assert ops(graph) == [
        *("conv", "add", "sub", "add", "rsqrt", "mul", "mul", "add", "hard_swish"),
        *("mean", "conv", "add", "clamp", "conv", "add", "add", "clamp", "mul", "mul"),
        *("depthwise", "add", "logistic", "mul", "resize", "slice", "transpose_conv", "add"),
        *("concat", "conv", "add", "reshape", "transpose", "softmax", "transpose", "mul", "mean"),
        *("logistic", "mul"),  # the last sum is needed at the end only
    ]
    assert len(graph.outputs) == 2


KERNEL = {"kernel": jax.ShapeDtypeStruct((3, 3, 1, 2), jnp.float32)}


@pytest.mark.parametrize("stride", [1, 2])
def test_the_default_of_a_platform_dependent_layer_is_traced(stride: int) -> None:
    def layer(formulation: str) -> object:
        return lambda p, x: depthwise(x, p["kernel"], stride, formulation)

    def chosen(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return lax.platform_dependent(p, x, cpu=layer(SHIFTED), default=layer(CANONICAL))

    graph = agreed(chosen, KERNEL, IMAGE.shape)
    assert ops(graph) == ["depthwise"]
    assert graph.hash == trace(layer(CANONICAL), KERNEL, IMAGE).hash
    assert graph.hash == trace(jax.jit(chosen), KERNEL, IMAGE).hash
    assert "conv_general_dilated" not in str(jax.make_jaxpr(layer(SHIFTED))(KERNEL, IMAGE))
    assert "depthwise" not in ops(agreed(layer(SHIFTED), KERNEL, IMAGE.shape)), (
        "written out, it is what it says"
    )


def test_a_hand_network_has_one_graph_whatever_runs_fast() -> None:
    net, image = (
        HandNet(9, 4, (Block(8, 4), Block(12, 4, 3, 2)), 3),
        jax.ShapeDtypeStruct((1, 9, 9, 1), jnp.float32),
    )
    params = jax.eval_shape(lambda x: HandModule(net, CANONICAL).init(jax.random.key(0), x, False), image)

    def module(formulation: str) -> object:
        return lambda p, x: HandModule(net, formulation).apply(p, x, False)

    def fast(p: object, x: jax.Array) -> jax.Array:
        return lax.platform_dependent(p, x, cpu=module(SHIFTED), default=module(CANONICAL))

    graph = agreed(fast, params, image.shape)
    assert graph.hash == trace(module(CANONICAL), params, image).hash
    assert {t.name for t in graph.tensors if t.site} == set(net.sites())
    assert ops(graph).count("rsqrt") == 2 + 3 * len(net.blocks), "every batch norm, unfolded"
