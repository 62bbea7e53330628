import pytest

from research.report.sections import context
from tests.report.example import CHIP, example_result


def test_layers_line_up_by_name_and_removed_ones_say_so():
    result = example_result()
    removed = result["arms"]["v2+sparse+distill+gates"]["layers"][CHIP].pop(4)
    lines = {line["name"]: line for line in context(result)["layers"]}
    assert len(lines) == 10
    assert lines[removed["name"]]["format"] == "removed"
    assert lines[removed["name"]]["cycles"] == ["1200", "1164", "–", "–"]
    assert lines["neck"]["sparse"]
    assert lines["neck"]["cycles"] == [
        "21000",
        "22050",
        f"{21000 * 1.1 * 0.62:.0f}",
        f"{21000 * 1.1 * 0.651:.0f}",
    ]
    assert not lines["stem"]["sparse"]
    assert lines["stem"]["note"] == "bound by its output stage"


def test_energy_lines_give_mean_power_at_two_frame_rates():
    result = example_result()
    result["rows"][1] |= {"mj": 0.5, "ms_simulated": 4.0}
    result["rows"][2]["mj"] = None
    lines = context(result)["energy"]
    assert lines[1] == ("0 new NPU, same network", "0.500", "125", "15.0", "30.0", f"{0.84 * 60 / 65:.2f}")
    assert lines[2][1:] == ("–",) * 5


def test_subjects_keep_their_order_and_their_findings():
    grouped = context(example_result())["findings"]
    assert list(grouped)[:3] == ["The whole way", "All techniques", "larger network"]
    assert len(grouped["+ sparse"]) == 2


@pytest.mark.parametrize(("count", "wide"), [(1, 3), (2, 2), (4, 2), (6, 3), (8, 4), (9, 3), (12, 3)])
def test_hands_fill_their_last_line_where_they_can(count, wide):
    result = example_result()
    result["gallery"] = (result["gallery"] * 3)[:count]
    assert context(result)["hands_a_line"] == wide


def test_ledger_values_are_words_or_json():
    ledger = context(example_result())["ledger"]
    assert ledger[2][:2] == ("rewrite", "compact")
    assert ("channels", '{"b0/expand": "96 -> 72"}') in ledger[2][2]
