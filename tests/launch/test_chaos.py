"""The disturber's own eyes: it must see orphans and doubled trials, or its verdict is worth nothing."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import chaos
from launch.store import open_store

ONCE = "start 11 from 0\nend 11 code 143\nstart 12 from 30\nend 12 code 0\n"


def written(tmp_path: Path, *logs: str) -> str:
    store = open_store(str(tmp_path))
    for number, log in enumerate(logs):
        store.append_log(f"trials/{number:05d}/attempts.log", log)
    return str(tmp_path)


def sleeper(store: str) -> subprocess.Popen[bytes]:
    """A process that looks like a trial of `store`."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "launch.trial", store, "0"])


@pytest.mark.parametrize(
    "log",
    [
        ONCE + "start 13 from 30\n",  # worked on after it was done
        "start 11 from 0\nstart 12 from 0\nend 11 code 0\n",  # two at a time
        "start 11 from 0\n",  # never done
    ],
)
def test_doubled_trials_are_seen(tmp_path: Path, log: str) -> None:
    store = written(tmp_path, ONCE, log, "start 11 from 0\nstart 12 from 0\nend 12 code 0\n")
    assert chaos.doubled(store, 3) == [1]


def test_a_trial_with_a_newer_checkpoint_is_worth_hitting(tmp_path: Path) -> None:
    url = written(tmp_path, "start 1 from 11\n")
    other = sleeper(url)
    try:
        store = open_store(url)
        store.write_bytes("trials/00000/attempts.log", f"start {other.pid} from 11\n".encode())
        store.write("trials/00000/attempt.json", {"progress": 11})
        store.write_bytes("trials/00000/run/stages/v1/steps/10/state", b"")
        while not chaos.trials_of(url):
            time.sleep(0.01)
        assert not chaos.ripe(url, 1)
        store.write_bytes("trials/00000/run/stages/v1/steps/20/state", b"")
        assert chaos.ripe(url, 1)
        store.append_log("trials/00000/attempts.log", f"end {other.pid} code 0\n")
        assert not chaos.ripe(url, 1)
    finally:
        other.kill()
        other.wait()


def test_resumed_attempts_are_counted(tmp_path: Path) -> None:
    assert chaos.resumed(written(tmp_path, ONCE, ONCE), 2) == (2, 2)


def test_faults_hit_trials_of_this_store_only(tmp_path: Path) -> None:
    mine, others = sleeper(str(tmp_path / "mine")), sleeper(str(tmp_path / "others"))
    try:
        while chaos.trials_of(str(tmp_path / "mine")) != [mine.pid]:
            time.sleep(0.01)
        assert os.getpid() not in chaos.trials_of(str(tmp_path / "others"))
        chance, place = random.Random(0), chaos.Here()
        assert chaos.disturb("trial -9", others, str(tmp_path / "mine"), place, chance)
        assert mine.wait(10) == -9
        assert others.poll() is None
        assert not chaos.disturb("trial -9", others, str(tmp_path / "mine"), place, chance)
        assert chaos.disturb("driver -9", others, str(tmp_path / "mine"), place, chance)
        assert others.returncode == -9
    finally:
        for process in (mine, others):
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_sweep_survives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert chaos.main(["--trials", "4", "--faults", "4", "--folder", str(tmp_path)]) == 0
    assert "survived" in capsys.readouterr().out
