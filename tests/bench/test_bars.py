"""Every bar can be missed, by itself, and says so in one line."""

import copy
from typing import Any

import pytest

from research.bench.bars import failures

ABLATION = {"within_share": 1.0, "expected": True, "largest_effect": 1.5}
GOOD: dict[str, Any] = {
    "mape_percent": 1.0,
    "tau": 0.99,
    "sram_error_percent": 1.0,
    "macs_exact_share": 1.0,
    "blocks_share": 0.97,
    "layers": {"conv 1x1": (9, 0.5, 4.0), "dense": (9, 8.0, 9.0), "softmax": (9, 50.0, 50.0)},
    "speedup_within": 1.0,
    "edits": {"sign_share": 0.97, "spearman": 0.95},
    "ablations": {"Sparsity": ABLATION, "FMStaging": ABLATION | {"expected": False, "largest_effect": 1.0}},
}
MISSES: list[tuple[tuple[str, ...], Any, str]] = [
    (("mape_percent",), 2.1, "MAPE"),
    (("tau",), float("nan"), "tau"),
    (("sram_error_percent",), 5.1, "SRAM"),
    (("macs_exact_share",), 0.999, "MAC formula"),
    (("blocks_share",), 0.94, "blocks"),
    (("layers", "conv 1x1"), (9, 1.1, 4.0), "conv 1x1 median"),
    (("layers", "conv 1x1"), (9, 0.5, 5.1), "conv 1x1 mean"),
    (("layers", "dense"), (9, 8.0, 10.5), "dense mean"),
    (("speedup_within",), 0.99, "2:4"),
    (("edits", "sign_share"), 0.94, "sign of edits"),
    (("edits", "spearman"), 0.89, "Spearman"),
    (("ablations", "Sparsity", "within_share"), 0.98, "Sparsity within"),
    (("ablations", "Sparsity", "largest_effect"), 1.04, "largest effect of Sparsity"),
    (("ablations", "FMStaging", "largest_effect"), 1.01, "no-op"),
]


def judged(face: str, own: dict[str, Any], chip: str = "Ethos-U85-128") -> list[str]:
    faces = {"plan": GOOD} | {face: own}
    return failures(chip, {"faces": faces})


def test_what_clears_every_bar_is_not_blamed() -> None:
    assert judged("plan", GOOD) == judged("cost", GOOD) == []


@pytest.mark.parametrize(("path", "value", "said"), MISSES, ids=lambda x: str(x)[:30])
def test_each_bar_can_be_missed(path: tuple[str, ...], value: object, said: str) -> None:
    bad = copy.deepcopy(GOOD)
    place = bad
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    (line,) = judged("plan", bad)
    assert said in line
    assert line.startswith("Ethos-U85-128 plan: ")


def test_faces_and_chips_have_bars_of_their_own() -> None:
    own = GOOD | {"mape_percent": 5.0, "tau": 0.955, "blocks_share": 0.1}
    assert len(judged("plan", own)) == 3
    assert len(judged("cost", own)) == 2  # U85-128: 4 % and .96
    assert judged("cost", own, "Ethos-U55-256") == []


def test_no_planner_is_a_miss() -> None:
    assert len(failures("Ethos-U85-128", {"faces": {"cost": GOOD}})) == 1
    missing, blocks = failures("Ethos-U85-128", {"faces": {"cost": GOOD | {"blocks_share": 0.1}}})
    assert "no exact planner" in missing
    assert "cost: same blocks" in blocks  # nobody else to hold to it
