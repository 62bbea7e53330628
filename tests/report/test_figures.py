import builtins
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest

from research.report import figures
from tests.report.example import CHIP, example_result, forget

DRAW = {
    name: getattr(figures, f"{name}_figure") for name in ("latency", "error", "stages", "training", "layers")
}


FULL = "v2+sparse+distill+gates"


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", DRAW)
def test_the_same_result_gives_the_same_bytes_and_no_date(name):
    svg = DRAW[name](example_result())
    assert svg == DRAW[name](example_result())
    assert "<metadata" not in svg
    assert not re.search(r"20\d\d-\d\d-\d\d", svg)


def test_bars_carry_the_numbers_of_the_result():
    result = example_result()
    found = texts(DRAW["latency"](result))
    for row in result["rows"]:
        assert f"{row['ms_simulated']:.3f}" in found
        assert f"{row['ms_referee']:.3f}" in found
    found = texts(DRAW["error"](result))
    for row in result["rows"]:
        assert f"{row['error_px_float']:.2f}" in found
        assert f"{row['error_px_int8']:.2f}" in found


def test_stages_and_arms_are_named():
    result = example_result()
    stages = texts(DRAW["stages"](result))
    assert {stage["stage"] for stage in result["arms"][FULL]["stages"]} <= set(stages)
    training = set(texts(DRAW["training"](result)))
    assert {row["arm"] for row in result["rows"]} <= training
    assert "v2+distill+gates" not in training  # a leave-one-out arm, no row of the table


def test_layers_are_listed_once_and_sparse_ones_marked():
    result = example_result()
    del result["arms"][FULL]["layers"][CHIP][4]  # a layer that compaction removed
    found = texts(DRAW["layers"](result))
    assert [found.count(layer["name"]) for layer in result["arms"]["v1"]["layers"][CHIP]] == [1] * 10
    assert found.count("2:4") == 5
    assert {"before (referee)", "after (referee)", "simulated (ours)"} <= set(found)


@pytest.mark.parametrize("name", DRAW)
def test_unknown_numbers_and_empty_lists_are_drawn_without_complaint(name):
    result = example_result()
    forget(result)
    for arm in result["arms"].values():
        arm["train"] = {"step": [1.0, 2.0], "error_px": [None, None], "loss": [None, None]}
        arm["layers"][CHIP] = [
            layer | {"cycles_simulated": None, "cycles_referee": None} for layer in arm["layers"][CHIP]
        ]
        arm["stages"] = [stage | {"ms_simulated": None, "error_px": None} for stage in arm["stages"]]
    assert DRAW[name](result).startswith("<?xml")
    for arm in result["arms"].values():
        arm |= {"train": {"step": [], "error_px": [], "loss": []}, "layers": {}, "stages": []}
    assert DRAW[name](result).startswith("<?xml")


def test_a_long_curve_is_drawn_as_means_of_equal_windows():
    points = [(float(i), float(i % 7)) for i in range(1000)]
    drawn = figures.curve_means(points)
    assert len(drawn) == 112
    assert drawn[0] == (4.0, sum(i % 7 for i in range(9)) / 9)
    assert figures.curve_means(points[:120]) == points[:120]
    assert figures.curve_means([]) == []


def test_names_are_text_and_never_markup_or_mathematics():
    result = example_result()
    result["rows"][1]["name"] = "<b>$x_1$</b>&_y"
    result["rows"][2]["name"] = "very " * 40 + "x" * 100
    svg = DRAW["latency"](result)
    assert "0 <b>$x_1$</b>&_y" in texts(svg)
    assert max(map(len, texts(svg))) <= 30
    assert "<b>" not in svg


def test_global_settings_of_matplotlib_are_left_alone():
    before = dict(mpl.rcParams)
    DRAW["layers"](example_result())
    assert dict(mpl.rcParams) == before


def test_missing_matplotlib_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"pip install '\.\[report\]'"):
        DRAW["latency"](example_result())
