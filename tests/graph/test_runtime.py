"""Running a model: quantised at the border, clear about what it cannot run."""

import sys

import numpy as np
import pytest

from research.graph.export import export
from research.graph.interpret import observe
from research.graph.rewrite import fuse
from research.graph.runtime import run_tflite
from research.graph.tflite import Writer
from research.graph.trace import trace
from tests.graph.samples import inverted_residual

NET = inverted_residual()
GRAPH = fuse(trace(NET.fn, NET.params, NET.image))[0]
MODEL = export(GRAPH, NET.params, observe(GRAPH, NET.params, NET.images()))


def test_images_are_independent_and_threads_change_nothing() -> None:
    images = NET.images(5)
    out = run_tflite(MODEL, images)
    assert out.shape == (5, 6)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(
        np.concatenate([run_tflite(MODEL, images[i : i + 1], 1) for i in range(5)]), out
    )
    assert run_tflite(MODEL, images[:0]).shape == (0, 6)


def test_fast_and_reference_kernels_agree_within_a_few_steps() -> None:
    images = NET.images(8)
    low, high = observe(GRAPH, NET.params, images)["head"]
    difference = run_tflite(MODEL, images) - run_tflite(MODEL, images, reference=True)
    assert np.abs(difference).max() <= 4 * (high - low) / 255


def test_values_beyond_the_range_saturate() -> None:
    images = NET.images(1)
    np.testing.assert_array_equal(run_tflite(MODEL, images * 0 + 50), run_tflite(MODEL, images * 0 + 900))


def test_the_runtime_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    run_tflite(MODEL, NET.images(1))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("shape", [(16, 16, 1), (2, 16, 16), (2, 16, 15, 1), (2, 16, 16, 3)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"the model reads \[N, 16, 16, 1\]"):
        run_tflite(MODEL, np.zeros(shape, np.float32))


def test_images_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        run_tflite(MODEL, np.full((1, 16, 16, 1), np.nan))


@pytest.mark.parametrize("junk", [b"", b"not a model at all", MODEL[: len(MODEL) // 2]])
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(ValueError, match="not a TFLite model"):
        run_tflite(junk, NET.images(1))


def test_a_model_that_the_runtime_rejects_is_refused() -> None:
    writer = Writer("an addition of shapes that do not fit")
    x, y, z = (writer.tensor(n, s, np.int8, 0.5) for n, s in (("x", (1, 3)), ("y", (1, 4)), ("z", (1, 3))))
    writer.operator("ADD", 2, [x, y], z, "AddOptions", {})
    with pytest.raises(ValueError, match="LiteRT refuses the model"):
        run_tflite(writer.finish([x, y], [z], {}), np.zeros((1, 3)))


def test_the_optional_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ModuleNotFoundError, match=r"ai-edge-litert: pip install '\.\[npu\]'"):
        run_tflite(MODEL, NET.images(1))
