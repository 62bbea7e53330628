"""The table's arithmetic on hand-made measurements."""

from typing import Any

import pytest

from research.report.rows import rows
from research.train.arms import all_arms
from tests.smoke import smoke

EXP = smoke()
MS = {
    "v1": 0.8,
    "teacher": 2.0,
    "v2": 1.2,
    "v2+sparse": 0.9,
    "v2+sparse+distill": 0.9,
    "v2+gates+sparse+distill": 0.75,
    "v2+gates+distill": 0.78,
    "v2+gates+sparse": 0.74,
}


def measured(name: str) -> dict[str, Any]:
    def on_chip(ms: float) -> dict[str, float]:
        known = {"ms_simulated": ms + 0.01, "ms_referee": ms, "mj": ms / 4, "macs": 1e6}
        return known | {"kb_encoded": 80.0, "sram_kb": 50.0}

    chips = {EXP.new_chip.name: on_chip(MS[name])}
    if name == "v1":
        chips[EXP.old_chip.name] = on_chip(1.2)
    error = 4.0 + MS[name]
    errors = {"error_px": error, "error_box": error / 40}
    return {"chips": chips, "params": 1e5, "float": errors, "int8": errors | {"error_px": error + 0.1}}


def table() -> list[dict[str, Any]]:
    return rows(EXP, {arm.name: measured(arm.name) for arm in all_arms(EXP)})


def test_rows_stand_in_the_order_of_the_config_each_on_the_one_before() -> None:
    found = table()
    assert [row["row"] for row in found] == [-1, 0, 1, 2, 3, 4]
    assert [row["technique"] for row in found[3:]] == list(EXP.rows)
    assert [row["baseline"] for row in found[1:]] == [row["name"] for row in found[:-1]]
    assert found[0]["chip"] == EXP.old_chip.name
    assert {row["chip"] for row in found[1:]} == {EXP.new_chip.name}


def test_ratios_are_of_referee_milliseconds() -> None:
    old, zero, large, sparse, distill, gates = table()
    assert old["step_x"] is None
    assert zero["step_x"] == pytest.approx(1.2 / 0.8)
    assert large["step_x"] == pytest.approx(0.8 / 1.2)
    assert (sparse["step_x"], distill["step_x"]) == pytest.approx((1.2 / 0.9, 1.0))
    assert gates["cumulative_x"] == pytest.approx(0.8 / 0.75)
    assert zero["cumulative_x"] == 1.0


def test_leave_one_out_compares_with_the_chain_without_the_link() -> None:
    by_link = {row["technique"]: row for row in table()}
    assert by_link["sparse"]["leave_one_out_x"] == pytest.approx(0.78 / 0.75)
    assert by_link["distill"]["leave_one_out_x"] == pytest.approx(0.74 / 0.75)
    assert by_link["gates"]["leave_one_out_x"] == pytest.approx(0.9 / 0.75)
    assert by_link["gates"]["leave_one_out_error_px"] == pytest.approx(0.15)
    assert by_link["capacity"]["leave_one_out_x"] is None


def test_claims_come_from_the_config() -> None:
    by_link = {row["technique"]: row for row in table()}
    assert {link: by_link[link]["claim"] for link in EXP.claims.names} == dict(EXP.claims.items)


def test_a_missing_measurement_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"v2\+gates\+distill"):
        rows(EXP, {arm.name: measured(arm.name) for arm in all_arms(EXP) if arm.name != "v2+gates+distill"})
