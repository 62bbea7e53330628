"""Files are judged as LiteRT, the referee and their own bytes say; what differs or cannot be read is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest

from research.bench.foreign import compare, examine, main, price, quantised, random_inputs
from research.graph.integer import quantise
from research.graph.ir import Graph
from research.graph.program import Program
from research.graph.tflite import schema
from research.graph.write import write
from research.npu import U55_128, U85_128, referee
from tests.npu.networks import Sketch, with_weights


def small() -> Graph:
    """A norm that is not folded, a residual, a pad, a table of values and a softmax."""
    sketch = Sketch((12, 12, 3))
    x = sketch.unit("conv", "image", "stem", 16, 3, 2, act="none")
    x = sketch.op("add", sketch.op("mul", x, sketch.constant(16)), sketch.constant(16))
    y = sketch.op("pad", x, spans=((0, 0), (1, 1), (1, 1), (0, 0)))
    y = sketch.op("conv", y, kernel_shape=(3, 3, 16, 16))
    y = sketch.op("hard_swish", sketch.op("add", x, y))
    y = sketch.op("mean", y, axes=(1, 2), recorded=(1, 16))
    return sketch.graph(sketch.op("softmax", sketch.dense(y, "head", 5), alpha=1.0, name="classes"))


@pytest.fixture(scope="module")
def program() -> Program:
    return Program(small(), with_weights(small()).params)


@pytest.fixture(scope="module")
def files(program: Program, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A float file, its int8 and int16x8 forms, one that LiteRT does not run and one that is none."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    inputs = [random_inputs(program, rng) for _ in range(3)]
    graph, params = plain()
    ranges = {tensor.name: (-4.0, 4.0) for tensor in graph.tensors}
    made = {
        "float": write(program),
        "int8": write(quantised(program, inputs)),
        "int16": write(quantise(graph, params, ranges, bits={"*": 16})),
    }
    parsed = schema().ModelT.InitFromPackedBuf(bytearray(made["float"]), 0)
    parsed.operatorCodes[0].version = 99
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(parsed.Pack(builder), b"TFL3")
    made |= {"newer": bytes(builder.Output()), "damaged": made["int8"][:1000]}
    for name, model in made.items():
        (folder / f"{name}.tflite").write_bytes(model)
    return {name: folder / f"{name}.tflite" for name in made}


def plain() -> tuple[Graph, dict[str, np.ndarray]]:
    """A network of layers that all have 16-bit kernels."""
    sketch = Sketch((32, 32, 16))
    x = sketch.unit("depthwise", sketch.unit("conv", "image", "a", 32), "b", 32, 3)
    net = with_weights(sketch.graph(sketch.add("a", x, "c")))
    return net.graph, net.params


def examined(path: Path) -> Any:
    return examine(path, U85_128, 1, np.random.default_rng(1))


@pytest.mark.parametrize("name", ["float", "int8", "int16"])
def test_files_of_every_format_hold(files: dict[str, Path], name: str) -> None:
    row = examined(files[name])
    assert (row.format, row.again, row.note, row.missed) == (
        {"float": "float32"}.get(name, name),
        "same",
        "",
        False,
    )
    assert row.error <= 1e-5
    assert row.differing == 0
    assert row.ms == pytest.approx(row.ms_referee, rel=0.15)
    assert row.ms_cpu == 0


def test_counts_are_those_of_the_graph(files: dict[str, Path]) -> None:
    row = examined(files["float"])
    assert row.ops == sum(node.op != "constant" for node in small().nodes)
    assert row.mmacs == small().total_macs / 1e6


def test_a_file_litert_refuses_is_held_against_ourselves(files: dict[str, Path]) -> None:
    row = examined(files["newer"])
    assert row.note.startswith("LiteRT refuses the model")
    assert (row.again, row.error, row.missed) == ("same", 0.0, False)


def test_the_command_prints_a_row_a_file(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(files[name]) for name in ("int8", "damaged")]
    assert main([*paths, "--inputs", "1", "--chip", "u55-128", "--check", "--json-only"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[0])
    assert len(lines) == 1
    assert [row["file"] for row in found["files"]] == ["int8.tflite", "damaged.tflite"]
    assert found["files"][0]["ms_referee"] == pytest.approx(referee(files["int8"].read_bytes(), U55_128).ms)
    assert found["files"][1]["note"].startswith("refused: ")
    assert found["missed"] == []


def test_the_table_names_every_column(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(files["damaged"])]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("differing", "ms_referee", "refused"))


def test_differences_are_relative_summed_and_strict() -> None:
    truth = (np.array([[2.0, -4.0]], np.float32), np.array([[1, 2, 3]], np.int8))
    found = (np.array([[2.0, -3.0]], np.float32), np.array([[1, 0, 0]], np.int8))
    assert compare([((), truth), ((), truth)], lambda _: found) == (0.25, 4)
    broken = (np.array([[np.nan, -4.0]], np.float32), truth[1])
    assert compare([((), truth)], lambda _: broken) == (np.inf, 0)
    with pytest.raises(ValueError, match="an output is int16"):
        compare([((), truth)], lambda _: (truth[0], truth[1].astype(np.int16)))


def test_inputs_fill_their_type(program: Program) -> None:
    rng = np.random.default_rng(0)
    (image,) = random_inputs(program, rng)
    assert image.dtype == np.float32
    assert image.shape == (1, 12, 12, 3)
    assert -1 <= image.min() < -0.9 < 0.9 < image.max() < 1
    (integers,) = random_inputs(quantised(program, [(image,)]), rng)
    assert integers.dtype == np.int8
    assert integers.min() < -120 < 120 < integers.max()


def test_16_bit_layers_cost_more() -> None:
    graph, params = plain()
    ranges = {tensor.name: (-4.0, 4.0) for tensor in graph.tensors}
    narrow, wide = (price(quantise(graph, params, ranges, bits=b), U85_128) for b in (None, {"*": 16}))
    assert wide[0] > narrow[0]
    assert narrow[1] == wide[1] == 0


def test_a_file_that_fails_is_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sketch, path = Sketch((8, 8, 4)), tmp_path / "overflows.tflite"
    graph = sketch.graph(sketch.unit("conv", "image", "a", 8, act="none"))
    weights = {"a/kernel": np.full((1, 1, 4, 8), 3e38, np.float32), "a/bias": np.zeros(8, np.float32)}
    path.write_bytes(write(Program(graph, weights)))
    assert main([str(path), "--check", "--json-only"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["missed"] == [f"overflows.tflite: {found['files'][0]['note']}"]
    assert found["missed"][0].startswith("overflows.tflite: failed: ")
    assert main([str(path), "--json-only"]) == 0
