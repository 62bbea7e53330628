"""The kept estimates belong to the configs as they are now, and every shipped sweep has its chip-hours."""

import json
from pathlib import Path

import pytest

from launch import forecast
from launch.forecast import COMMANDS, MAIN, SHIPPED, SLICES, chip_hours, kept, stale
from launch.precompile import arguments_of
from tests.smoke import ROOT

REPORTS = kept(ROOT / forecast.FILE)


def test_no_kept_estimate_is_stale() -> None:
    assert stale(REPORTS) == {}, "make check-tpu"


def test_every_main_config_fits_on_both_slices() -> None:
    for command in (f"{config} --topology {topology}" for config in MAIN for topology in SLICES):
        report = REPORTS[command]
        assert report["total"]["fits"]
        assert report["topology"] == arguments_of(command.split()).topology
        assert all(0 < row["hbm_share"] < 0.9 and row["step_ms"] > 0 for row in report["rows"])


def test_another_config_makes_an_estimate_stale() -> None:
    command = COMMANDS[0]
    changed = {name: dict(report) for name, report in REPORTS.items()}
    changed[command]["fingerprint"] = "0" * 8
    assert stale(changed) == {command: "configs/v2.py is another one since"}
    changed[command] = dict(REPORTS[command]) | {"steps_a_dispatch": 7}
    assert list(stale(changed)) == [command]
    del changed[command]
    assert stale(changed) == {command: "there is no estimate of it"}


@pytest.mark.parametrize("name", SHIPPED[1])
def test_the_readme_has_the_chip_hours_of_every_shipped_sweep(name: str) -> None:
    row = chip_hours(REPORTS, name)
    words = f"| `{name}` | {row['trials']} | {row['v5e_4']:.3g} | {row['v5e_16']:.3g} |"
    assert words in (ROOT / "launch" / "README.md").read_text()


def test_the_command_line_says_what_is_stale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert forecast.main([]) == 0
    assert "not measured" in capsys.readouterr().out
    kept_, file = json.loads((ROOT / forecast.FILE).read_text()), tmp_path / "kept.json"
    kept_["reports"][0]["fingerprint"] = "?"
    file.write_text(json.dumps(kept_))
    assert forecast.main(["--file", str(file)]) == 1
    assert capsys.readouterr().err.count("make check-tpu") == 1
    assert forecast.main(["--file", str(tmp_path / "none.json")]) == 2
