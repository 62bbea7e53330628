"""The kept estimates belong to the configs as they are now, and every shipped sweep has its chip-hours."""

import json
from pathlib import Path

import pytest

from launch import forecast
from launch.forecast import COMMANDS, MAIN, SHIPPED, chip_hours, kept, stale
from launch.precompile import arguments_of
from tests.smoke import ROOT

REPORTS = kept(ROOT / forecast.FILE)


def test_stale_estimates_are_those_that_the_file_calls_outdated() -> None:
    assert set(REPORTS) <= set(COMMANDS)
    outdated = json.loads((ROOT / forecast.FILE).read_text())["outdated"]
    assert sorted(stale(REPORTS, tuple(REPORTS))) == outdated, "make check-tpu"
    readme = (ROOT / "launch" / "README.md").read_text()
    assert ("estimates are outdated" in readme) == bool(outdated)


def test_every_main_config_is_kept_and_fits() -> None:
    assert {report["config"] for report in REPORTS.values()} == set(MAIN)
    for command, report in REPORTS.items():
        assert report["total"]["fits"]
        assert report["topology"] == arguments_of(command.split()).topology
        assert all(0 < row["hbm_share"] < 0.9 and row["step_ms"] > 0 for row in report["rows"])


def test_another_config_makes_an_estimate_stale() -> None:
    command = COMMANDS[0]
    changed = {command: dict(REPORTS[command]) | {"fingerprint": "0" * 8}}
    assert stale(changed, [command]) == {command: "configs/v2.py is another one since"}
    changed[command] = dict(REPORTS[command]) | {"steps_a_dispatch": 7}
    assert list(stale(changed, [command])) == [command]
    assert stale({}, [command]) == {command: "there is no estimate of it"}


@pytest.mark.parametrize("name", SHIPPED[1])
def test_the_readme_has_the_chip_hours_of_every_shipped_sweep(name: str) -> None:
    row = chip_hours(REPORTS, name)
    words = f"| `{name}` | {row['trials']:.0f} | {row['v5e_4']:.3g} | {row['v5e_16']:.3g} |"
    assert words in (ROOT / "launch" / "README.md").read_text()


def test_the_command_line_says_what_is_stale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    lacking = len(stale(REPORTS))
    first = next(iter(REPORTS))
    assert forecast.main([]) == int(lacking > 0)
    said = capsys.readouterr()
    assert "not measured" in said.out
    assert said.err.count("make check-tpu") == lacking
    kept_, file = json.loads((ROOT / forecast.FILE).read_text()), tmp_path / "kept.json"
    kept_["reports"][0]["fingerprint"] = "?"
    file.write_text(json.dumps(kept_))
    assert forecast.main(["--file", str(file)]) == 1
    assert first in capsys.readouterr().err
    assert forecast.main(["--file", str(tmp_path / "none.json")]) == 2
