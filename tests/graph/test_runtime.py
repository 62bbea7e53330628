"""Running a model: quantised at the border or raw, timed in turns, clear about what it cannot run."""

import sys

import numpy as np
import pytest

from research.graph.export import export, export_float
from research.graph.interpret import interpret_float, observe
from research.graph.ir import Graph, Node, Tensor
from research.graph.program import Program
from research.graph.rewrite import fuse
from research.graph.runtime import run_raw, run_tflite, time_tflite
from research.graph.tflite import Writer
from research.graph.trace import trace
from research.graph.write import write
from tests.graph.cases import CASES, in_integers, program_of, real_values
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


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_raw_outputs_are_the_integers_behind_the_real_ones(dtype: str) -> None:
    program, inputs = program_of(CASES["conv"])
    integer = in_integers(program, real_values(program, inputs), dtype)
    model, into, out = write(integer), integer.scales["x0"], integer.scales["y"]
    (raw,) = run_raw(model, [into.quantise(inputs["x0"])])
    assert raw.dtype == dtype
    np.testing.assert_array_equal(out.real(raw), run_tflite(model, inputs["x0"], reference=True))


def test_raw_runs_every_input_and_output_in_order() -> None:
    nodes = (Node("sub", ("a", "b"), "d"), Node("mean", ("d",), "m", axes=(1,)), Node("neg", ("b",), "n"))
    tensors = tuple(Tensor(n, (1, 3)) for n in "abdn")
    graph = Graph(nodes, (*tensors, Tensor("m", (1,))), ("b", "a"), ("n", "m", "d"))
    a, b = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    got = run_raw(write(Program(graph, {})), [b, a])
    for value, wanted in zip(got, (-b, (a - b).mean(1), a - b), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-6)


def test_a_model_that_mixes_images_runs_one_at_a_time() -> None:
    graph = Graph(
        (Node("transpose", ("x",), "y", axes=(1, 0)),),
        (Tensor("x", (1, 3)), Tensor("y", (3, 1))),
        ("x",),
        ("y",),
    )
    model, x = write(Program(graph, {})), np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(run_raw(model, [x[:1]])[0], x[:1].T)
    with pytest.raises(ValueError, match="mixes images; run one image at a time, not 2"):
        run_raw(model, [x])


def test_raw_inputs_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"reads 1 input\(s\), got 2"):
        run_raw(MODEL, [NET.images(1)] * 2)
    with pytest.raises(ValueError, match=r"input 'image' is float32 \(1, 16, 16, 1\); wanted int8"):
        run_raw(MODEL, [NET.images(1)])
    with pytest.raises(ValueError, match=r"wanted int8 \(2, 16, 16, 1\)"):
        run_raw(MODEL, [np.zeros((2, 16, 15, 1), np.int8)])


def test_float_files_run_too() -> None:
    images = NET.images(3)
    wanted = interpret_float(GRAPH, NET.params, images)
    for reference in (True, False):
        got = run_tflite(export_float(GRAPH, NET.params), images, reference=reference)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_more_work_takes_longer() -> None:
    def dense(width: int) -> bytes:
        node = Node("dense", ("x",), "y", kernel="k", kernel_shape=(width, width))
        graph = Graph((node,), (Tensor("x", (1, width)), Tensor("y", (1, width))), ("x",), ("y",))
        return write(Program(graph, {"k": np.ones((width, width), np.float32)}))

    times = time_tflite({"large": dense(1500), "small": dense(20)}, rounds=5)
    assert [(name, len(ms)) for name, ms in times.items()] == [("large", 5), ("small", 5)]
    assert np.median(times["large"]) > 5 * np.median(times["small"]) > 0
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        time_tflite({"small": MODEL}, rounds=0)


@pytest.mark.parametrize("junk", [b"", b"not a model at all", MODEL[: len(MODEL) // 2]])
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(ValueError, match=r"\.tflite"):
        run_tflite(junk, NET.images(1))


def test_a_model_that_the_runtime_rejects_is_refused() -> None:
    writer = Writer("an addition of shapes that do not fit")
    x, y, z = (writer.tensor(n, s, np.int8, 0.5) for n, s in (("x", (1, 3)), ("y", (1, 4)), ("z", (1, 3))))
    writer.operator("ADD", 2, [x, y], z, "AddOptions", {})
    with pytest.raises(ValueError, match="LiteRT refuses the model"):
        run_tflite(writer.finish([x, y], [z], {}), np.zeros((1, 3)))


def test_a_kernel_that_gives_up_is_an_error() -> None:
    writer = Writer("a kernel without int16")
    x, y = (writer.tensor(n, (1, 3), np.int16, 0.5) for n in "xy")
    writer.operator("RELU_N1_TO_1", 1, [x], y, None, {})
    model = writer.finish([x], [y], {})
    with pytest.raises(ValueError, match=r"LiteRT cannot run the model: .*INT16"):
        run_raw(model, [np.zeros((1, 3), np.int16)])
    with pytest.raises(ValueError, match="LiteRT cannot run the model"):
        time_tflite({"x": model})


def test_the_optional_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ModuleNotFoundError, match=r"ai-edge-litert: pip install '\.\[npu\]'"):
        run_tflite(MODEL, NET.images(1))
