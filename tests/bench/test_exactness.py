"""The comparison finds no difference on networks of ours, and finds one where an interpreter is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest

from research.bench import exactness
from research.graph.read import read

RELEASED = Path(__file__).parents[2] / "configs/released/v2.tflite"


@pytest.mark.slow
def test_two_small_networks_and_the_v2(capsys: pytest.CaptureFixture[str]) -> None:
    assert exactness.main(["--networks", "1", "--inputs", "12", "--seed", "1", "--check"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["missed"] == []
    assert found["networks"] == 2
    assert found["images"] >= 12
    assert found["integers"] == found["images"] * 42


def test_an_interpreter_that_is_off_by_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = exactness.run_numpy

    def wrong(program, inputs):
        first, *rest = right(program, inputs)
        return (first + (np.arange(first.size).reshape(first.shape) == 5).astype(first.dtype), *rest)

    program = read(RELEASED.read_bytes())
    images = exactness.input_images(program, 2, np.random.default_rng(0))
    assert exactness.compare("v2", "file", program, images)[5:8] == (84, 0, 0)
    monkeypatch.setattr(exactness, "run_numpy", wrong)
    assert exactness.compare("v2", "file", program, images)[5:8] == (84, 0, 1)


def test_inputs_hold_both_extremes() -> None:
    program = read(RELEASED.read_bytes())
    images = exactness.input_images(program, 6, np.random.default_rng(0))
    assert images.dtype == np.int8
    assert {int(images[0].min()), int(images[0].max())} == {-128}
    assert {int(images[1].min()), int(images[1].max())} == {127}
    assert len(np.unique(images[3])) > 200
