"""One trial: done once, resumed, never twice at a time, and honest about whose fault its end was."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from launch import trial
from launch.store import Store, open_store

ROOT = Path(__file__).parents[2]
SPEC = {"number": 3, "config": "x.py", "overrides": ["seed=1", "optim.lr=0.01"], "smoke": True}
PLACE = "trials/00003"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = open_store(str(tmp_path / "store"))
    made.write(f"{PLACE}/spec.json", SPEC)
    return made


def works(words: Sequence[str]) -> int:
    """In the place of a training run: writes what it was told as its result."""
    workdir = Path(words[words.index("--workdir") + 1])
    print("working")
    (workdir / "result.json").write_text(json.dumps({"rows": [{"ms": 1.0, "words": list(words)}]}))
    return 0


def fails(code: int) -> Callable[[Sequence[str]], int]:
    def work(words: Sequence[str]) -> int:
        print("it went wrong")
        return code

    return work


def test_a_spec_becomes_a_result(store: Store, tmp_path: Path) -> None:
    assert trial.run(store, 3, works) == 0
    result = store.read(f"{PLACE}/result.json")
    workdir = str(tmp_path / "store" / PLACE / "run")
    words = ["x.py", "seed=1", "optim.lr=0.01", "--workdir", workdir, "--devices", "0", "--quiet", "--smoke"]
    assert result == {"number": 3, "rows": [{"ms": 1.0, "words": words}]}
    assert (Path(workdir) / trial.LOG).read_text() == "working\n"


def test_a_finished_trial_is_not_done_again(store: Store) -> None:
    assert trial.run(store, 3, works) == 0
    assert trial.run(store, 3, fails(1)) == 0


def test_the_log_keeps_every_attempt_and_codes_go_through(store: Store, tmp_path: Path) -> None:
    assert trial.run(store, 3, fails(1)) == 1
    assert trial.run(store, 3, fails(143)) == 143
    assert (tmp_path / "store" / PLACE / "run" / trial.LOG).read_text() == "it went wrong\n" * 2
    assert store.read(f"{PLACE}/result.json") is None
    attempts = (tmp_path / "store" / PLACE / "attempts.log").read_text().splitlines()
    assert [line.split()[0] for line in attempts] == ["start", "end", "start", "end"]


def test_two_of_one_number_take_turns(store: Store) -> None:
    codes: list[int] = []
    with store.lease(f"{PLACE}/lease", 60.0):
        waiting = threading.Thread(target=lambda: codes.append(trial.run(store, 3, fails(1))))
        waiting.start()
        time.sleep(0.3)
        assert not codes
        store.write(f"{PLACE}/result.json", {"number": 3, "rows": [{}]})  # the other one finished
        waiting.join(10)
    assert codes == [0]


def test_progress_grows_with_every_newer_checkpoint(tmp_path: Path) -> None:
    seen = [trial.progress(tmp_path)]
    for name in ("stages/a/steps/10", "stages/a/steps/20", "stages/a/outcome/0", "measured/a.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        seen.append(trial.progress(tmp_path))
    assert seen == sorted(set(seen))
    (tmp_path / "stages/a/steps/10").unlink()  # only the newest are kept
    (tmp_path / "stages/a/steps/30.orbax-checkpoint-tmp").touch()
    assert trial.progress(tmp_path) == seen[-1]


def test_bad_input_is_one_line(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trial.main([str(tmp_path / "store"), "4"], works) == 2
    assert "no trials/00004/spec.json" in capsys.readouterr().err


def test_a_store_that_fails_is_not_the_trials_fault(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def loses_the_store(words: Sequence[str]) -> int:
        for path in sorted((tmp_path / "store").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (tmp_path / "store").rmdir()
        (tmp_path / "store").write_text("a file now")
        return 1

    assert trial.main([str(tmp_path / "store"), "3"], loses_the_store) == trial.STORE_FAILED
    assert capsys.readouterr().err.count("\n") == 1


def test_a_trial_whose_parent_is_gone_ends_at_once(store: Store, tmp_path: Path) -> None:
    environment = os.environ | {trial.PARENT: "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "launch.trial", str(tmp_path / "store"), "3"]
    done = subprocess.run(command, env=environment, check=False, capture_output=True)
    assert done.returncode == -9
    assert store.read(f"{PLACE}/attempt.json") is None


@pytest.mark.parametrize(
    ("says", "code"), [("it broke", 1), ("write() failed: No space left on device; writing x", trial.FULL)]
)
def test_a_crash_is_in_the_log_alone(
    store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str], says: str, code: int
) -> None:
    def crashes(words: Sequence[str]) -> int:
        raise RuntimeError(says)

    assert trial.run(store, 3, crashes) == code
    assert f"RuntimeError: {says}" in (tmp_path / "store" / PLACE / "run" / trial.LOG).read_text()
    assert capfd.readouterr() == ("", "")
