import pytest

from research.report.chain import baseline_ms, before_and_after, full_arm, row_zero, techniques
from tests.report.example import CHIP, example_result


def test_row_zero_is_found_by_number_and_techniques_follow_it():
    result = example_result()
    assert row_zero(result)["technique"] == "npu"
    assert [row["row"] for row in techniques(result)] == [1, 2, 3, 4]
    assert full_arm(result) == "v2+sparse+distill+gates"
    result["rows"] = result["rows"][2:]
    assert row_zero(result)["row"] == 1


def test_a_baselines_time_follows_from_the_step():
    rows = example_result()["rows"]
    assert baseline_ms(rows[1]) == pytest.approx(rows[0]["ms_referee"])
    assert baseline_ms(rows[0]) is None
    assert baseline_ms(rows[1] | {"ms_referee": None}) is None


def test_layers_come_from_row_zeros_chip_or_the_first_other_one():
    result = example_result()
    full = result["arms"][full_arm(result)]["layers"]
    full["Ethos-A"] = []
    before, after = before_and_after(result)
    assert (before.arm, before.chip) == ("v1", CHIP)
    assert (after.arm, after.chip) == ("v2+sparse+distill+gates", CHIP)
    assert before.layers is result["arms"]["v1"]["layers"][CHIP]
    del full[CHIP]
    assert before_and_after(result)[1].chip == "Ethos-A"
    full.clear()
    assert before_and_after(result)[1].layers == []
