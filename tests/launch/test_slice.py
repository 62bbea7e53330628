"""A trial over several processes: the first alone has the store; all stop together, and one alone goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import slice as one_slice
from launch import trial
from launch.store import open_store
from research.train.arms import Arm, stage_key
from tests.conftest import CACHE
from tests.smoke import CONFIG, ROOT, smoke, v1_steps

PATIENCE_S = 400.0
OVERRIDES = [v1_steps(300), "save_every=30"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(CACHE / "jax-tests"))


def spec(folder: Path, number: int = 0, **more: object) -> str:
    store = open_store(str(folder))
    what = {"number": number, "config": str(CONFIG), "overrides": OVERRIDES, "smoke": True}
    store.write(f"{trial.folder_of(number)}/spec.json", what | more)
    return str(folder)


def test_trials_in_one_process_end_as_launch_trial_ends_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def work(words: list[str]) -> int:
        asked.append(list(words))
        Path(words[words.index("--workdir") + 1], "result.json").write_text('{"rows": [{"ms": 1.0}]}')
        return 0 if len(asked) < 3 else 7

    monkeypatch.setattr(trial, "research_run", work)
    for number in range(4):
        spec(tmp_path, number)
    assert one_slice.run(str(tmp_path), [0, 1]) == 0
    assert one_slice.run(str(tmp_path), [1, 2, 3]) == 7  # 1 is done, 2 fails, 3 is not begun
    assert [words[0] for words in asked] == [str(CONFIG)] * 3
    done = open_store(str(tmp_path)).read("trials/00001/result.json")
    assert done == {"number": 1, "rows": [{"ms": 1.0}]}


def test_a_trial_without_a_spec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert one_slice.main([str(tmp_path), "4"]) == 2
    assert "trials/00004/spec.json" in capsys.readouterr().err


def test_bad_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert one_slice.main(["store", "0", "--processes", "-1"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.slow
def test_preempted_on_two_hosts_it_ends_on_one(tmp_path: Path) -> None:
    store = spec(tmp_path / "store")
    run = tmp_path / "store" / "trials" / "00000" / "run"
    metrics = run / "stages" / stage_key(smoke(*OVERRIDES), Arm("v1"), 0) / "metrics.jsonl"
    command = [sys.executable, "-m", "launch.slice", store, "0"]
    child = subprocess.Popen([*command, "--processes", "2", "--devices", "2"], cwd=ROOT)
    begin = time.monotonic()
    while not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        assert child.poll() is None
        assert time.monotonic() - begin < PATIENCE_S
        time.sleep(0.05)
    others = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    os.kill(int(others[1]), signal.SIGTERM)
    assert child.wait(PATIENCE_S) == 143
    assert not (run.parent / "result.json").exists()
    done = subprocess.run(command, cwd=ROOT, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0
    assert json.loads((run.parent / "result.json").read_text())["rows"]
