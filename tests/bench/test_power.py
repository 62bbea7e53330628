"""The story's claims are judged under every static power, with V1 where the story has it."""

import json

import pytest

from research.bench import power


def test_v1_stays_where_the_story_has_it_and_the_claims_fall(capsys: pytest.CaptureFixture[str]) -> None:
    assert power.main([]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["p_static_mw"] for row in rows[::3]] == [0, 60, 120]
    assert all(row["mj"] == pytest.approx(2.16, rel=1e-4) for row in rows if row["chip"] == "Ethos-U55-128")
    newer = [row for row in rows if row["chip"] != "Ethos-U55-128"]
    assert {verdict for row in newer for verdict in row["claims"].values()} == {"refuted"}
    assert all(row["scale_for_story"] < 0.5 for row in newer)
