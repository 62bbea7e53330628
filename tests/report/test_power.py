import pytest

from research.report.power import STORY_MJ, active_mw, needed_scale
from tests.report.example import example_result


def test_the_storys_energies():
    assert pytest.approx((2.16, 0.96)) == STORY_MJ


def test_active_power_is_energy_over_the_time_it_was_modelled_from():
    row = example_result()["rows"][0] | {"mj": 2.16, "ms_simulated": 12.0, "ms_referee": 10.0}
    assert active_mw(row) == pytest.approx(180)
    assert active_mw(row | {"ms_simulated": None}) == pytest.approx(216)
    assert active_mw(row | {"mj": None}) is None
    assert active_mw(row | {"ms_referee": None, "ms_simulated": None}) is None


def test_the_needed_scale_gives_the_wanted_power():
    result = example_result()
    row, static_mw = result["rows"][-1], result["energy"]["p_static_mw"]
    scale = needed_scale(result, row, 120.0)
    switching_mw = (active_mw(row) - static_mw) / result["energy"]["scale"]
    assert static_mw + scale * switching_mw == pytest.approx(120.0)
    assert needed_scale(result, row, 50.0) is None
    result["energy"]["scale"] = None
    assert needed_scale(result, row) is None
