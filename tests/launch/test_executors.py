"""Trials as processes: how their ends are told, and that none outlives the one that started it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.executors import Local, RayExecutor, end, infrastructure, on_node, start
from launch.store import open_store

PATIENCE_S = 30.0
SAVES = """
import signal, sys, time
def save(*_):
    open(sys.argv[1] + ".saved", "w").close()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
open(sys.argv[1] + ".ready", "w").close()
time.sleep(60)
"""
DRIVER = """
import sys, time
from launch.executors import Local
executor = Local([sys.executable, "-m", "launch.trial", sys.argv[1]])
executor.submit((0,))
print(executor._running[0,].pid, flush=True)
time.sleep(60)
"""


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def until(true: Callable[[], bool]) -> None:
    begin = time.monotonic()
    while not true():
        assert time.monotonic() - begin < PATIENCE_S
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("code", "blames_machine"), [(-9, True), (143, True), (128, True), (1, False), (126, False)]
)
def test_exit_codes_are_blamed_on_machine_or_trial(code: int, blames_machine: bool) -> None:
    assert infrastructure(code) is blames_machine


def test_each_trial_ends_with_its_own_code() -> None:
    executor = Local(python("import sys; sys.exit(int(sys.argv[1]))"), slots=2)
    for number in (3, 5):
        executor.submit((number,))
    ends = [executor.wait(PATIENCE_S), executor.wait(PATIENCE_S)]
    assert sorted(filter(None, ends)) == [((3,), 3), ((5,), 5)]
    assert executor.wait(0.0) is None


def test_a_killed_trial_ends_below_zero() -> None:
    executor = Local(python("import os; os.kill(os.getpid(), 9)"))
    executor.submit((1,))
    assert executor.wait(PATIENCE_S) == ((1,), -signal.SIGKILL)


def test_stop_lets_trials_save_first(tmp_path: Path) -> None:
    executor = Local(python(SAVES.replace("sys.argv[1]", f"{str(tmp_path)!r} + '/' + sys.argv[1]")))
    executor.submit((4,))
    until((tmp_path / "4.ready").exists)
    executor.stop()
    assert (tmp_path / "4.saved").exists()
    assert executor.wait(0.0) is None


def test_drop_ends_one_trial_and_tells_nothing(tmp_path: Path) -> None:
    executor = Local(python("import time; time.sleep(60)"), slots=1)
    executor.submit((0,))
    executor.drop((0,))
    executor.drop((7,))
    assert executor.wait(0.0) is None


def test_what_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    process = subprocess.Popen(python(program), stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        end([process], grace_s=0.2)
    assert process.returncode == -signal.SIGKILL


def test_no_trial_outlives_a_killed_driver(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    store = open_store(str(tmp_path))
    store.write("trials/00000/spec.json", {"number": 0, "config": "none.py", "overrides": [], "smoke": False})
    with store.lease("trials/00000/lease", 60.0):  # so the trial waits for it
        driver = subprocess.Popen(
            [*python(DRIVER), str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert driver.stdout is not None
        with driver.stdout:
            trial = int(driver.stdout.readline())
        assert alive(trial)
        driver.kill()
        driver.wait()
        until(lambda: not alive(trial))


def test_the_body_of_a_task_says_the_code_of_its_trial(tmp_path: Path) -> None:
    program = "import sys; sys.exit(int(sys.argv[1]) + int(sys.argv[2]))"
    assert on_node(["any-python", "-c", program], (3, 4), str(tmp_path)) == 7


def test_a_trial_hears_no_ctrl_c_of_the_terminal() -> None:
    process = start(python("import time; time.sleep(60)"), (0,))
    assert os.getsid(process.pid) == process.pid
    end([process])
    assert process.returncode == -signal.SIGTERM


def test_a_missing_ray_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install '.\[ray\]'"):
        RayExecutor(["python"])
