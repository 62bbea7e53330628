"""Killed at any moment, the same command goes on and ends in the same bits as a run that was never broken."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from research.train.arms import Arm, full, stage_key
from research.train.fit import Outcome, fit
from tests.conftest import CACHE
from tests.smoke import CONFIG, ROOT, Finished, same_bits, smoke, v1_steps

ARM_PROGRAM = """
import sys
from pathlib import Path
from research.door import find_arm, load
from research.train.fit import fit
from research.train.measure import ship
from research.train.record import write_bytes
from research.train.runtime import prepare_runtime

prepare_runtime()
workdir = Path(sys.argv[2])
exp = load(sys.argv[1], smoke=True)
model, _, _ = ship(exp, fit(exp, find_arm(exp, ""), workdir, devices=1))
write_bytes(workdir / "full.tflite", model)
"""
PATIENCE_S = 300.0
MANY = (v1_steps(100), "save_every=10")


def start(*words: str) -> subprocess.Popen[str]:
    """A Python process of its own, with the compiled programs of earlier runs at hand."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(CACHE / "jax-tests"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, *words]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def wait_for(child: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """Returns when the child has come so far; fails when it ended before, or never gets there."""
    begin = time.monotonic()
    while not reached():
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() - begin < PATIENCE_S
        time.sleep(0.002)


def lines_written(workdir: Path) -> int:
    """Lines of metrics of all stages together."""
    return sum(path.read_text().count("\n") for path in workdir.glob("stages/*/metrics.jsonl"))


@pytest.mark.slow
def test_killed_at_three_random_moments(finished: Finished, tmp_path: Path) -> None:
    chance = random.Random(2)
    total = 2 * 4  # the teacher's stage and the three of the network, two looks each
    for moment in sorted(chance.sample(range(1, total), 3)):
        child = start("-c", ARM_PROGRAM, str(CONFIG), str(tmp_path))
        wait_for(child, lambda moment=moment: lines_written(tmp_path) >= moment)
        time.sleep(chance.uniform(0.0, 0.1))
        child.kill()
        child.communicate()
        assert child.returncode == -signal.SIGKILL
        assert not (tmp_path / "full.tflite").exists()
    last = start("-c", ARM_PROGRAM, str(CONFIG), str(tmp_path))
    _, errors = last.communicate(timeout=PATIENCE_S)
    assert last.returncode == 0, errors
    exp = smoke()
    assert (tmp_path / "full.tflite").read_bytes() == finished.export(full(exp).name)
    ours, whole = (fit(exp, full(exp), workdir, devices=1) for workdir in (tmp_path, finished.workdir))
    assert ours.net == whole.net
    assert ours.ledger == whole.ledger
    assert same_bits(ours[1:4], whole[1:4])


@pytest.fixture(scope="module")
def long_fit(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return fit(smoke(*MANY), Arm("v1"), tmp_path_factory.mktemp("unbroken"), devices=1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_by_a_signal_the_same_command_goes_on(
    tmp_path: Path, long_fit: Outcome, number: signal.Signals, code: int
) -> None:
    exp, arm, workdir = smoke(*MANY), Arm("v1"), tmp_path / "broken"
    key = stage_key(exp, arm, 0)
    child = start("-m", "research.run", str(CONFIG), "--smoke", "--workdir", str(workdir), *MANY)
    wait_for(child, lambda: lines_written(workdir) >= 2)
    child.send_signal(number)
    _, errors = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == code
    assert errors == "interrupted; the same command goes on from here\n"
    saved = max(int(path.name) for path in (workdir / "stages" / key / "steps").iterdir())
    assert 20 <= saved < 100
    assert json.loads((workdir / "card.json").read_text())["overrides"] == list(MANY)
    assert not (workdir / "stages" / key / "outcome" / "0").exists()
    assert same_bits(fit(exp, arm, workdir, devices=1)[1:4], long_fit[1:4])
