"""The rerun bench: its arithmetic on made-up timings, and that it can fail."""

import pytest

from research.bench import rerun


def test_bars_are_held_to_edits_only() -> None:
    fine = {
        "first fit": {"seconds": 99.0, "compiled": 1.0},
        "learning rate": {"seconds": 9.0, "compiled": 0.0},
    }
    assert rerun.failures(fine) == []


@pytest.mark.parametrize(("row", "word"), [((11.0, 0.0), "11.0 s"), ((1.0, 1.0), "compiled 1")])
def test_a_slow_or_compiling_edit_is_named(row: tuple[float, float], word: str) -> None:
    found = {"learning rate": {"seconds": row[0], "compiled": row[1]}}
    assert len(rerun.failures(found)) == 1
    assert word in rerun.failures(found)[0]


def test_check_turns_a_miss_into_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerun, "measure", lambda config, steps: {"edit": {"seconds": 99.0, "compiled": 0.0}})
    assert rerun.main(["--check"]) == 1
    assert rerun.main([]) == 0
