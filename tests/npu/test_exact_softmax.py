"""A softmax runs as many passes as the compiler makes of it; its reciprocal is that of the sum of each row."""

import pytest

from research.npu.chip import U55_128, U85_128, Chip
from research.npu.exact_softmax import softmax
from research.npu.exact_steps import Area, View


@pytest.mark.parametrize(
    ("chip", "bits", "steps"), [(U85_128, 8, 29), (U55_128, 8, 29), (U85_128, 16, 16), (U55_128, 16, 17)]
)
def test_passes(chip: Chip, bits: int, steps: int) -> None:
    source, target = (View(Area(n, (1, 36, 36), bits), (1, 36, 36)) for n in ("x", "y"))
    found = softmax("y", source, target, chip)
    assert len(found) == steps
    assert found[-1].ofm is target
    assert found[-1].kind == "Asr"
    sums = [step for step in found if step.kind == "ReduceSum"]
    assert [step.ofm.shape for step in sums] == [(1, 36, 1)]
    assert sum(step.kind == "MaxPool" for step in found) == 1
