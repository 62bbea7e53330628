"""The file: same bytes every time, near the float network, 2:4 intact, errors by name."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from research.graph.export import export, export_float, verify
from research.graph.inspection import inspect
from research.graph.integer import quantise, tensor_scales
from research.graph.interpret import interpret_float, observe, site_values
from research.graph.ir import Graph
from research.graph.program import Program
from research.graph.rewrite import fuse
from research.graph.runtime import run_tflite
from research.graph.tflite import read_metadata
from research.graph.trace import trace
from research.graph.weights import weights_of
from research.graph.write import write
from research.npu.chip import U85_128
from research.npu.referee import referee
from tests.graph.samples import (
    ACTIVATIONS,
    Net,
    conv,
    inverted_residual,
    networks,
    sqnr_db,
    two_of_four,
    weights,
)


def graph_of(net: Net) -> Graph:
    return fuse(trace(net.fn, net.params, net.image))[0]


@pytest.mark.parametrize("size", [15, 16, 17])
def test_an_exported_network_is_near_the_float_one(size: int) -> None:
    net = inverted_residual(size)
    graph, images = graph_of(net), net.images(16)
    model = export(graph, net.params, observe(graph, net.params, images))
    real = net.fn(net.params, images)
    assert sqnr_db(real, run_tflite(model, images)) > 25
    assert sqnr_db(real, run_tflite(model, images, reference=True)) > 25


@settings(max_examples=20)
@given(networks)
def test_random_networks_run_in_the_runtime(net: Net) -> None:
    graph, images = graph_of(net), net.images(8)
    ranges = observe(graph, net.params, images)
    if any(n.op == "clamp" and n.bounds not in ((0.0, np.inf), (0.0, 6.0)) for n in graph.nodes):
        with pytest.raises(ValueError, match="in integers TFLite has only relu"):
            export(graph, net.params, ranges)
        return
    real = interpret_float(graph, net.params, images)
    got = run_tflite(export(graph, net.params, ranges), images, reference=True)
    step = max((high - low) / 255 for low, high in ranges.values())
    assert np.abs(got - real).max() <= 0.08 * np.abs(real).max() + 3 * step


def test_the_same_input_gives_the_same_bytes_and_keeps_its_metadata() -> None:
    net = inverted_residual()
    graph = graph_of(net)
    ranges = observe(graph, net.params, net.images())
    model = export(graph, net.params, ranges, {"ledger": "[]", "configuration": '{"n": 2}'})
    again = export(
        graph_of(net),
        dict(reversed(net.params.items())),
        ranges,
        {"configuration": '{"n": 2}', "ledger": "[]"},
    )
    assert again == model
    assert read_metadata(model) == {"ledger": "[]", "configuration": '{"n": 2}'}
    assert export(graph, net.params, {**ranges, "head": (-9.0, 9.0)}) != export(graph, net.params, ranges)


def test_two_of_four_survives_rounding_and_writing() -> None:
    net = inverted_residual()
    thin = ("b0/expand", "b1/project", "head")

    def prune(path: Any, leaf: np.ndarray) -> np.ndarray:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return two_of_four(leaf) if name.removesuffix("/kernel") in thin and name.endswith("kernel") else leaf

    params = jax.tree_util.tree_map_with_path(prune, net.params)
    graph = graph_of(net)
    facts = inspect(export(graph, params, observe(graph, params, net.images())))
    assert {f.name for f in facts if f.two_of_four} == {*thin, "stem"}  # a stem of one input channel is 1:4


def test_one_layer_equals_the_integer_arithmetic_of_the_specification() -> None:
    rng = np.random.default_rng(0)
    params = {"head": weights(rng, 40, 7)}

    def fn(p: Any, x: jax.Array) -> jax.Array:
        return jax.nn.relu(x.reshape(x.shape[0], -1) @ p["head"]["kernel"] + p["head"]["bias"][None, :])

    net = Net(fn, params, (1, 4, 5, 2))
    graph, images = graph_of(net), rng.uniform(-1, 1, (50, 4, 5, 2)).astype(np.float32)
    ranges = observe(graph, params, images)
    scales = tensor_scales(graph, ranges)
    into, out = scales[graph.inputs[0]], scales[graph.outputs[0]]
    layer = quantise(graph, params, ranges).integers[graph.outputs[0]]
    x = into.quantise(images).reshape(50, -1).astype(np.int64) - into.zero_point
    sums = x @ layer.kernel.astype(np.int64) + layer.bias[None, :]
    real = sums * (layer.scale.astype(np.float64) * into.scale)[None, :]
    wanted = np.clip(np.rint(real / out.scale) + out.zero_point, max(out.zero_point, -128), 127)
    got = run_tflite(export(graph, params, ranges), images, reference=True)
    np.testing.assert_allclose(got / out.scale + out.zero_point, wanted, atol=1e-3)


def every_operation(p: Any, x: jax.Array) -> jax.Array:
    y = ACTIVATIONS["relu6"](conv(p["a"], x, 2))
    z = conv(p["b"], y, 1, 4)
    pooled = lax.reduce_window(y, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")
    counts = lax.reduce_window(
        jnp.ones((1, *z.shape[1:3], 1)), 0.0, lax.add, (1, 3, 3, 1), (1, 2, 2, 1), "SAME"
    )
    average = lax.reduce_window(z, 0.0, lax.add, (1, 3, 3, 1), (1, 2, 2, 1), "SAME") / counts
    joined = jax.nn.relu(jnp.concatenate([pooled, average, pooled + average], -1))
    kept = checkpoint_name(joined.mean((1, 2), keepdims=True), "kept")
    return kept.reshape(x.shape[0], -1) @ p["c"]["kernel"]


def test_every_operation_has_a_form_in_the_file() -> None:
    rng = np.random.default_rng(3)
    params = {"a": weights(rng, 3, 3, 2, 4), "b": weights(rng, 3, 3, 1, 4), "c": weights(rng, 12, 5)}
    net = Net(every_operation, params, (1, 13, 14, 2))
    graph, images = graph_of(net), net.images(8)
    model = export(graph, params, observe(graph, params, images))
    assert {f.op for f in inspect(model)} == {
        "CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D", "AVERAGE_POOL_2D", "ADD", "CONCATENATION", "RELU",
        "MEAN", "RESHAPE", "FULLY_CONNECTED",
    }  # fmt: skip
    assert sqnr_db(every_operation(params, images), run_tflite(model, images)) > 25


def test_bias_correction_lowers_the_mean_error() -> None:
    rng = np.random.default_rng(1)
    kernel = weights(rng, 1, 1, 64, 8)
    kernel["kernel"][..., 0, :] *= 40  # one heavy input channel makes the rounding of the others coarse
    net = Net(lambda p, x: conv(p, x), kernel, (1, 6, 6, 64))
    graph = graph_of(net)
    images = rng.uniform(0.2, 1, (16, 6, 6, 64)).astype(np.float32)
    images[..., 0] *= 0.01
    means = {n: np.asarray(v).mean((0, 1, 2)) for n, v in site_values(graph, kernel, images).items()}
    ranges, real = observe(graph, kernel, images), np.asarray(net.fn(kernel, images))
    bias = [
        np.abs((run_tflite(export(graph, kernel, ranges, means=m), images) - real).mean((0, 1, 2))).mean()
        for m in (None, means)
    ]
    assert bias[1] < 0.5 * bias[0]
    with pytest.raises(ValueError, match="'nowhere', not a tensor"):
        export(graph, kernel, ranges, means={"nowhere": np.ones(3)})


def test_what_is_missing_is_named() -> None:
    net = inverted_residual()
    graph = graph_of(net)
    ranges = dict(observe(graph, net.params, net.images()))
    with pytest.raises(ValueError, match=r"no range .* for 'b0/depthwise'"):
        export(graph, net.params, {n: r for n, r in ranges.items() if n != "b0/depthwise"})
    with pytest.raises(ValueError, match="parameter 'stem/kernel', which was not given"):
        export(graph, {}, ranges)
    with pytest.raises(ValueError, match="'b0/adds', not a tensor"):
        export(graph, net.params, {**ranges, "b0/adds": (0.0, 1.0)})


def test_an_unfused_chain_is_near_the_fused_one() -> None:
    net = inverted_residual()
    unfused, images = trace(net.fn, net.params, net.image), net.images(8)
    model = export(unfused, net.params, observe(unfused, net.params, images))
    assert {"CONV_2D", "ADD", "RELU6"} < {f.op for f in inspect(model)}
    assert sqnr_db(net.fn(net.params, images), run_tflite(model, images, reference=True)) > 20


@given(networks)
def test_float_files_mean_what_the_graph_means(net: Net) -> None:
    images = net.images(3)
    for graph in (graph_of(net), trace(net.fn, net.params, net.image)):
        wanted = np.asarray(interpret_float(graph, net.params, images))
        got = run_tflite(export_float(graph, net.params), images, reference=True)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_every_layer_has_the_bits_it_was_given() -> None:
    net = inverted_residual()
    graph, images = graph_of(net), net.images(16)
    ranges, real = observe(graph, net.params, images), np.asarray(net.fn(net.params, images))
    noise = {}
    for name, bits in (("all 8", {}), ("some 16", {"b0/*": 16, "stem": 16}), ("all 16", {"*": 16})):
        model = export(graph, net.params, ranges, bits=bits)
        wide = {f.name for f in inspect(model) if f.dtype == "int16" and f.op != "QUANTIZE"}
        layers = {n.output for n in graph.nodes}
        some = {"stem", *(n for n in layers if n.startswith("b0/"))}
        assert wide == {"all 8": set(), "some 16": some, "all 16": layers}[name]
        noise[name] = sqnr_db(real, run_tflite(model, images, reference=True))
        assert referee(model, U85_128).cycles > 0
    assert noise["all 8"] + 1 < noise["some 16"] < noise["all 16"]


def test_a_file_that_holds_something_else_is_refused() -> None:
    net = inverted_residual()
    graph = graph_of(net)
    ranges = observe(graph, net.params, net.images())
    program, floats = quantise(graph, net.params, ranges), weights_of(graph, net.params)
    model = export(graph, net.params, ranges)
    verify(program, model, floats)

    def refused(match: str, program: Program = program, asked: dict[str, str] | None = None) -> None:
        with pytest.raises(ValueError, match=match):
            verify(program, model, floats, asked)

    refused(r"does not hold 'b0/add' \(add\): it is int8, asked for int16", asked={"b0/add": "int16"})
    layer = program.integers["stem"]
    for kernel, match in (
        (layer.kernel[::-1], "its kernel changed"),
        (layer.kernel * 0, "its kernel changed"),
    ):
        changed = {**program.integers, "stem": layer._replace(kernel=kernel)}
        refused(rf"'stem' \(conv\): {match}", replace(program, integers=changed))
    tail, tensor = replace(graph.nodes[-1], output="tail"), replace(graph.tensor("head"), name="tail")
    renamed = replace(graph, nodes=(*graph.nodes[:-1], tail), tensors=(*graph.tensors, tensor))
    refused(r"'tail' \(dense\): it is gone", replace(program, graph=renamed))
    wide = layer.kernel.copy()
    wide[0, 0, 0, 0] = -128
    beyond = replace(program, integers={**program.integers, "stem": layer._replace(kernel=wide)})
    with pytest.raises(ValueError, match="its weights reach from -128 to 127, beyond 127"):
        verify(beyond, write(beyond), floats)
    sparse = dict(net.params, head=dict(net.params["head"], kernel=two_of_four(net.params["head"]["kernel"])))
    with pytest.raises(ValueError, match=r"'head' \(dense\): its 2:4 pattern is gone"):
        verify(program, model, weights_of(graph, sparse))
