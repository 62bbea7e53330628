"""Packs: which trials share a process, and that each is in the store what it would be alone."""

import dataclasses as dc
from collections.abc import Sequence
from pathlib import Path

import pytest

from launch import pack, trial
from launch.job import Job, overrides
from launch.store import Store, open_store
from tests.smoke import CONFIG, ROOT

POINTS = {
    0: {"seed": 0},
    1: {"optim.batch": 16},
    2: {"seed": 1, "optim.lr": 0.02},
    3: {"optim.batch": 16, "seed": 3},
    4: {"squeeze.gates.budget_ms": 0.7},
}
JOB = Job(str(CONFIG), "sweep", tuple(POINTS.values()), smoke=True)


def written(path: Path) -> Store:
    store = open_store(str(path))
    for number, point in POINTS.items():
        what = {"number": number, "config": JOB.config, "overrides": overrides(point), "smoke": True}
        store.write(f"{trial.folder_of(number)}/spec.json", what)
    return store


def plays(asked: list[list[str]], code: int = 0):
    """Work that writes down its words, and a result into each workdir."""

    def work(lines: Sequence[list[str]]) -> int:
        asked.extend(lines)
        for words in lines:
            print("said once")
            workdir = Path(words[words.index("--workdir") + 1])
            (workdir / "result.json").write_text('{"rows": [{"ms": 1.0}]}')
        return code

    return work


def test_trials_of_one_shape_share_a_process() -> None:
    assert pack.packs_of(JOB, POINTS, POINTS, 1) == [(0,), (1,), (2,), (3,), (4,)]
    assert pack.packs_of(JOB, POINTS, POINTS, 2) == [(0, 2), (1, 3), (4,)]
    assert pack.packs_of(JOB, POINTS, POINTS, 8) == [(0, 2, 4), (1, 3)]
    assert pack.packs_of(JOB, POINTS, [2, 3], 8) == [(2,), (3,)]


def test_recorded_and_taught_hands_train_alone() -> None:
    job = dc.replace(JOB, config=str(CONFIG.with_name("teacher_mediapipe.py")))
    points = {0: {"seed": 0}, 1: {"seed": 1}}
    assert pack.packs_of(job, points, points, 8) == [(0,), (1,)]


def test_each_trial_gets_its_result_and_what_is_done_is_left_out(tmp_path: Path) -> None:
    store, asked = written(tmp_path), list[list[str]]()
    store.write("trials/00002/result.json", {"number": 2, "rows": [{"ms": 9.0}]})
    assert pack.run(store, [0, 2, 4], plays(asked)) == 0
    assert [words[1] for words in asked] == ["seed=0", "squeeze.gates.budget_ms=0.7"]
    assert store.read("trials/00004/result.json") == {"number": 4, "rows": [{"ms": 1.0}]}
    assert store.read("trials/00002/result.json") == {"number": 2, "rows": [{"ms": 9.0}]}
    attempts = [line.split() for line in (tmp_path / "trials/00004/attempts.log").read_text().splitlines()]
    assert [words[0] for words in attempts] == ["start", "end"]
    assert (tmp_path / "trials/00000/run/log.txt").read_text() == "said once\nsaid once\n"
    assert "side by side with trial 0" in (tmp_path / "trials/00004/run/log.txt").read_text()
    assert pack.run(store, [0, 2, 4], plays(asked)) == 0
    assert len(asked) == 2


def test_a_pack_that_fails_has_no_results(tmp_path: Path) -> None:
    store = written(tmp_path)
    assert pack.run(store, [0, 2], plays([], 7)) == 7
    assert store.read("trials/00000/result.json") is None
    assert (tmp_path / "trials/00002/attempts.log").read_text().endswith("code 7\n")


def test_a_trial_without_a_spec(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"trials/00007/spec\.json"):
        pack.run(written(tmp_path), [0, 7], plays([]))


def test_several_numbers_on_the_command_line_are_a_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    written(tmp_path)
    monkeypatch.setattr("research.run.main_together", plays(asked))
    assert trial.main([str(tmp_path), "0", "2"]) == 0
    assert [words[1:2] for words in asked] == [["seed=0"], ["seed=1"]]


@pytest.mark.slow
def test_a_sweep_in_packs_has_the_table_of_one_trial_a_process(tmp_path: Path) -> None:
    from launch import sweep

    config = tmp_path / "three.py"
    points = "[{'seed': 0}, {'seed': 1, 'optim.lr': 0.02}, {'seed': 2}]"
    config.write_text((ROOT / "launch" / "tiny.py").read_text() + f"\n\ndef three():\n    return {points}\n")
    for store, population in (("singly", "1"), ("together", "3")):
        words = ["--sweep", "three", "--smoke", "--store", str(tmp_path / store), "--population", population]
        assert sweep.main([str(config), *words]) == 0
    assert (tmp_path / "together/trials.csv").read_bytes() == (tmp_path / "singly/trials.csv").read_bytes()
    log = (tmp_path / "together/trials/00002/run/log.txt").read_text()
    assert "side by side with trial 0" in log
