"""Heads: what their logits mean, against loops; their files, exact in our integers and decoded alike everywhere."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import nets
from research.graph import calibrate, compile_exact, quantise, run_raw, run_tflite, trace, write
from research.graph.rewrite import fuse
from research.nets import Block, HandNet, Head
from research.nets.heads import decode, kind_of, outputs, places
from tests.nets.samples import images, weights

BASE = HandNet(16, 4, (Block(8, 8, 3, 2), Block(8, 8, 3)), 8)  # its last plane: 4 x 4
HEADS = (Head("simcc", 8), Head("simcc", 6, 5), Head("heatmap", 8), Head(hidden=7))


def test_coordinates_are_offsets_from_the_centre() -> None:
    raw = np.random.default_rng(0).normal(size=(2, 42)).astype(np.float32)
    np.testing.assert_array_equal(decode(jnp.asarray(raw)), raw.reshape(2, 21, 2) + np.float32(0.5))


def test_simcc_is_an_expectation_of_each_row() -> None:
    raw = np.random.default_rng(1).normal(size=(2, 42 * 5)).astype(np.float32) * 3
    seen = np.asarray(decode(jnp.asarray(raw)))
    for n, joint, axis in np.ndindex(2, 21, 2):
        row = raw[n, (joint * 2 + axis) * 5 :][:5].astype(np.float64)
        chances = np.exp(row) / np.exp(row).sum()
        assert seen[n, joint, axis] == pytest.approx(float(chances @ [0.0, 0.25, 0.5, 0.75, 1.0]), abs=1e-5)


def test_a_heatmap_is_an_expectation_over_its_cells() -> None:
    side, parts = 3, 2
    raw = np.random.default_rng(2).normal(size=(1, side, side, 21 * parts**2)).astype(np.float32) * 2
    seen = np.asarray(decode(jnp.asarray(raw)))
    for joint in range(21):
        total, x_sum, y_sum = 0.0, 0.0, 0.0
        for row, column, i, j in np.ndindex(side, side, parts, parts):
            chance = np.exp(float(raw[0, row, column, joint * parts**2 + i * parts + j]))
            total += chance
            x_sum += chance * (column * parts + j + 0.5) / (side * parts)
            y_sum += chance * (row * parts + i + 0.5) / (side * parts)
        np.testing.assert_allclose(seen[0, joint], [x_sum / total, y_sum / total], atol=1e-5)


def test_simcc_reaches_beyond_the_crop_and_a_heatmap_does_not() -> None:
    assert places(10, False)[0] == pytest.approx(-0.0625)
    assert places(10, True)[0] == pytest.approx(0.05)
    for heatmap in (False, True):
        assert places(12, heatmap).mean() == pytest.approx(0.5)


@pytest.mark.parametrize("head", HEADS)
def test_a_head_is_exact_in_integers_and_known_by_its_shape(head: Head) -> None:
    net = replace(BASE, head=head)
    assert kind_of(net_shape(net)) == head.kind
    fn, shapes, image = nets.traced(net)
    graph, _ = fuse(trace(fn, shapes, image))
    params, _ = weights(net.folded())
    pictures = np.asarray(images(net, 8))[..., None]
    program = quantise(graph, params, calibrate(graph, params, pictures))
    file = write(program)
    as_float = np.asarray(fn(params, pictures))
    integers = program.scales[program.graph.inputs[0]].quantise(pictures)
    (reference,) = run_raw(file, [integers])
    np.testing.assert_array_equal(np.asarray(compile_exact(program)(integers)[0]), reference)
    shipped = run_tflite(file, pictures)
    assert shipped.shape == as_float.shape
    assert np.abs(shipped - as_float).max() < 0.1 * np.abs(as_float).max()
    assert float(np.abs(decode(jnp.asarray(shipped)) - decode(jnp.asarray(as_float))).max()) < 0.1


def net_shape(net: HandNet) -> tuple[int, ...]:
    params, norm_stats = nets.shapes(net)
    told = jax.eval_shape(lambda p, s, x: nets.forward(net, p, s, x), params, norm_stats, images(net, 2))
    assert told.keypoints.shape == (2, 21, 2)
    assert set(told.taps) == set(net.sites())
    return told.taps["head"].shape[1:]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: Head("simc"), "head.kind='simc' must be one of coordinates, simcc, heatmap"),
        (lambda: Head("simcc", 1), "head.bins=1"),
        (lambda: Head(bins=4), "head.bins=4: coordinates have 0 bins"),
        (lambda: Head("heatmap", 8, 4), "head.hidden=4 does not go with 'heatmap'"),
        (lambda: replace(BASE, head=Head("heatmap", 9)), "head.bins=9 must be a multiple of 4"),
        (lambda: nets.axes(jnp.zeros((1, 42))), "coordinates have no axes"),
        (lambda: decode(jnp.zeros((1, 43))), r"puts out \[43\] numbers an image, not 42"),
        (lambda: decode(jnp.zeros((1, 2, 2, 21 * 3))), r"puts out \[2, 2, 63\]"),
    ],
)
def test_what_is_no_head(wrong, says) -> None:
    with pytest.raises(ValueError, match=says):
        wrong()


def test_smoke_heads_fit_the_smoke_network() -> None:
    for head in (*HEADS, Head("heatmap", 24)):
        small = replace(BASE, size_px=96 if head.bins == 24 else 16, head=head).smoke()
        assert small.head.kind == head.kind
        assert outputs(small.head, small.plane()) == net_shape(small)[-1]
