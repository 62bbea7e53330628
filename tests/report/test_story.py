import pytest

from research.report.story import Claim, accuracy_change_percent, findings, parse_claim
from tests.report.example import CHIP, example_result, forget, line_of


def verdicts(result: dict, subject: str) -> list[str]:
    return [found.verdict for found in findings(result) if found.subject == subject]


def words(result: dict, subject: str) -> str:
    return " ".join(found.text for found in findings(result) if found.subject == subject)


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("1.5x, -0.5 %", Claim(1.5, -0.5)),
        ("1.15x, +1 %", Claim(1.15, 1.0)),
        ("1.25x", Claim(1.25)),
        ("+3 %", Claim(accuracy_percent=3.0)),
        ("1.1×, −0.2%", Claim(1.1, -0.2)),
        ("2x capacity", Claim(capacity_x=2.0)),
        ("12 ms, 180 mW", Claim()),
        ("-", Claim()),
        ("", Claim()),
    ],
)
def test_claims_are_read(text, claim):
    assert parse_claim(text) == claim


@pytest.mark.parametrize(
    ("step_x", "verdict"), [(1.111, "refuted"), (1.46, "refuted"), (1.48, "reached"), (2, "reached")]
)
def test_a_speed_is_judged_against_its_claim(step_x, verdict):
    result = example_result()
    line_of(result, "sparse")["step_x"] = step_x
    assert verdicts(result, "+ sparse")[0] == verdict
    text = words(result, "+ sparse")
    assert f"{step_x:.2f}x over “larger network” (taken out of the full chain: 1.12x)" in text
    assert f"claimed 1.5x: {verdict} in this one run." in text


def test_accuracy_below_the_spread_of_seeds_stays_open_with_one_run():
    result = example_result()
    gates = line_of(result, "gates")
    assert accuracy_change_percent(result, gates) == pytest.approx(100 * -0.11 / (2.51 - 0.11))
    assert verdicts(result, "+ gates") == ["reached", "open"]
    assert verdicts(result | {"n": 3}, "+ gates") == ["reached", "refuted"]
    gates["leave_one_out_error_px"] = 1.0
    assert verdicts(result, "+ gates") == ["reached", "reached"]
    gates["leave_one_out_error_px"] = -1.0
    assert verdicts(result, "+ gates") == ["reached", "refuted"]
    assert "raises the full chain's error by 1.00 px (66.2 % worse)" in words(result, "+ gates")


def test_the_whole_way_separates_the_chip_from_the_rest():
    result = example_result()
    text = words(result, "The whole way")
    assert f"From 1.189 ms (“v1 as it was”) to 0.963 ms a frame is {1.189 / 0.963:.2f}x" in text
    assert "claimed 1.5x (12 to 8 ms): refuted in this one run" in text
    assert f"brings {1.189 / 0.929:.2f}x of it; everything after that {0.929 / 0.963:.2f}x." in text


def test_the_product_of_claims_is_compared_from_the_first_claimed_row_on():
    result = example_result()
    text = words(result, "All techniques")
    assert f"multiply to {1.5 * 1.15:.2f}x" in text
    assert f"from “larger network” to the last row the referee finds {1.31 / 0.963:.2f}x: refuted" in text
    line_of(result, "sparse")["claim"] = "1.1x"
    assert verdicts(result, "All techniques") == ["reached"]


def test_capacity_is_counted_in_parameters():
    result = example_result()
    larger, zero = line_of(result, "capacity"), line_of(result, "npu")
    assert verdicts(result, "larger network") == ["reached", "fact"]
    ratio = larger["params"] / zero["params"]
    assert f"Capacity: {ratio:.2f}x the parameters of row 0 and {1.31 / 0.929:.2f}x its MACs" in words(
        result, "larger network"
    )
    larger["params"] = 1.9 * zero["params"]
    assert verdicts(result, "larger network") == ["refuted", "fact"]


def test_sparse_layers_are_counted_from_the_referees_word():
    result = example_result()
    assert "stores 5 of 7 conv and dense layers as Sparse2_4" in words(result, "2:4 layers")
    for layer in result["arms"]["v2+sparse+distill+gates"]["layers"][CHIP]:
        layer["weight_format"] = "Default"
    assert "stores 0 of 7" in words(result, "2:4 layers")


def test_energy_is_refuted_above_the_storys_power_and_says_what_would_be_needed():
    result = example_result()
    last = result["rows"][-1]
    last |= {"mj": 0.18, "ms_simulated": 1.0}
    assert verdicts(result, "Energy (modelled)") == ["refuted"]
    assert "180 mW while active" in words(result, "Energy (modelled)")
    assert "would have to be 0.42 instead of 0.84" in words(result, "Energy (modelled)")
    last["mj"] = 0.12
    assert verdicts(result, "Energy (modelled)") == ["reached"]


def test_simulation_is_compared_with_the_referee():
    result = example_result()
    result["rows"][0]["ms_simulated"] = 1.09 * result["rows"][0]["ms_referee"]
    assert "by 4.0 % on average and 9.0 % at most over 6 rows" in words(result, "Simulation")


def test_one_run_is_said_with_every_verdict_and_more_seeds_are_counted():
    for found in findings(example_result()):
        assert (found.verdict in ("fact", "open")) != ("in this one run" in found.text)
    for found in findings(example_result() | {"n": 4}):
        assert (found.verdict == "fact") != ("over 4 seeds" in found.text)


def test_nothing_is_claimed_from_unknown_numbers():
    result = forget(example_result())
    for arm in result["arms"].values():
        arm["layers"] = {}
    assert findings(result) == ()
