"""launch/node_up.sh with a fake python and pip: versions are checked, commands are run, timed and stopped."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SCRIPT = HERE.parents[1] / "launch" / "node_up.sh"
PINS = """\
# a comment
jax==0.10.2
jaxlib==0.10.2
libtpu==0.0.30
flax==0.12.8
optax==0.2.8
orbax-checkpoint==0.12.8
numpy==2.4.6
array_record==0.8.6
not-installed==1.0
"""
# pip spells names as it likes; what constraints.txt does not name is not compared, only part of the digest.
FOUND = PINS.replace("orbax-checkpoint", "orbax_checkpoint").replace("array_record", "Array.Record")
FOUND = FOUND.replace("not-installed==1.0\n", "npu-squeeze==0.1.0\n-e git+something\n")


class Worker:
    """A checkout on one worker, as far as node_up.sh sees it."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = folder / "npu-squeeze"
        (self.root / "launch").mkdir(parents=True)
        shutil.copy(SCRIPT, self.root / "launch")
        (self.root / "constraints.txt").write_text(PINS)
        self.versions = folder / "versions"
        self.versions.write_text(FOUND)
        tools = folder / "tools"
        tools.mkdir()
        (tools / "python3.11").symlink_to(HERE / "fake_python")
        for name, value in {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHON": "python3.11",
            "FAKE_VERSIONS": str(self.versions),
            "REAL_PYTHON": sys.executable,
            "NODE_GRACE": "1",
        }.items():
            patch.setenv(name, value)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """node_up.sh, from another folder as ssh does."""
        command = ["bash", str(self.root / "launch" / "node_up.sh"), *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.root.parent, text=True, stdout=pipe, stderr=pipe)

    def call(self, *words: str) -> tuple[int, str, str]:
        """Its exit code, output and errors."""
        process = self.start(*words)
        out, error = process.communicate(timeout=20)
        return process.returncode, out, error


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    return Worker(tmp_path, monkeypatch)


def refused(result: tuple[int, str, str], says: str) -> None:
    """Exit code 2 and one line with the reason."""
    code, out, error = result
    assert (code, out) == (2, "")
    assert error.count("\n") == 1
    assert error.startswith("node_up: refused on ")
    assert says in error


def test_bash_reads_it() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    assert os.access(SCRIPT, os.X_OK)


def test_up_installs_from_the_constraints_and_tells_the_versions(worker: Worker) -> None:
    code, out, error = worker.call("up", "gcs,sweep")
    assert (code, error) == (0, "")
    (line,) = out.splitlines()
    assert line.startswith("node_up: ok host=")
    assert " python=3.11.7 jax=0.10.2 packages=" in line
    installs = (worker.root / "pip.log").read_text().splitlines()
    assert [line.partition(" -c constraints.txt ")[2] for line in installs] == [
        "setuptools",  # the one that a new environment has is another version
        "--no-build-isolation -e .[gcs,sweep]",
    ]
    assert worker.call("up", "gcs,sweep")[1] == out  # again, and the same
    worker.versions.write_text(FOUND + "other==1\n")
    assert worker.call("up", "gcs,sweep")[1] != out


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("jax==0.10.2", "jax==0.9.0", "jax is 0.9.0, constraints.txt says 0.10.2"),
        ("jax==0.10.2", "jax==0.10.20", "jax is 0.10.20, constraints.txt says 0.10.2"),
        ("libtpu==0.0.30", "libtpu==0.0.31", "libtpu is 0.0.31"),
        ("Array.Record==0.8.6", "Array.Record==0.8.5", "array-record is 0.8.5"),
        ("libtpu==0.0.30\n", "", "libtpu is not installed"),
        ("orbax_checkpoint==0.12.8\n", "", "orbax-checkpoint is not installed"),
    ],
)
def test_a_version_that_differs_is_refused(worker: Worker, old: str, new: str, says: str) -> None:
    assert old in FOUND
    worker.versions.write_text(FOUND.replace(old, new))
    refused(worker.call("up"), says)


def test_all_versions_that_differ_are_named(worker: Worker) -> None:
    worker.versions.write_text(FOUND.replace("jax==0.10.2", "jax==1").replace("flax==0.12.8", "flax==2"))
    refused(
        worker.call("up"), "flax is 2, constraints.txt says 0.12.8; jax is 1, constraints.txt says 0.10.2"
    )


def test_what_is_needed_must_be_pinned(worker: Worker) -> None:
    (worker.root / "constraints.txt").write_text(PINS.replace("libtpu==0.0.30\n", ""))
    refused(worker.call("up"), "constraints.txt does not pin libtpu")


def test_no_python_and_no_install_are_refused(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_PIP_CODE", "1")
    refused(worker.call("up"), "pip install failed")
    monkeypatch.setenv("FAKE_UNFIT", "1")
    refused(worker.call("up"), "no Python 3.11 or 3.12")


@pytest.mark.parametrize("words", [[], ["down"], ["run"], ["run", "5"]])
def test_unknown_words_are_refused(worker: Worker, words: list[str]) -> None:
    refused(worker.call(*words), "say ")


def test_run_needs_up(worker: Worker) -> None:
    refused(worker.call("run", "5", "true"), "up comes first")


@pytest.fixture
def ready(worker: Worker) -> Worker:
    (worker.root / ".venv" / "bin").mkdir(parents=True)
    (worker.root / ".venv" / "bin" / "python").symlink_to(HERE / "fake_python")
    return worker


def running(worker: Worker) -> Path:
    """Wait until the command has said that it is there."""
    path, end = worker.root / "there", time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    return path


SAVES = "trap 'echo saved; exit 143' TERM; echo > there; while :; do sleep 0.02; done"


@pytest.mark.parametrize("expected", [0, 1, 2, 143])
def test_run_tells_the_commands_own_exit_code(ready: Worker, expected: int) -> None:
    code, out, _ = ready.call("run", "5", "bash", "-c", f"echo $PWD; echo $JAX_PLATFORMS; exit {expected}")
    assert code == expected
    place, platforms, last = out.splitlines()
    assert place == str(ready.root)
    assert platforms == "tpu,cpu"
    assert last.startswith(f"node_up: exit={expected} host=")
    assert not (ready.root / ".node_run.pid").exists()


def test_run_uses_the_checked_python_and_keeps_words_apart(ready: Worker) -> None:
    code, out, _ = ready.call(
        "run", "5", "python", "-c", "import sys; print(sys.argv[1:])", "a b", "$HOME", ""
    )
    assert code == 0
    assert out.splitlines()[0] == "['a b', '$HOME', '']"


def test_time_that_is_over_is_sigterm_and_124(ready: Worker) -> None:
    code, out, _ = ready.call("run", "0.3", "bash", "-c", SAVES)
    assert code == 124
    assert out.startswith("saved\nnode_up: exit=124")


def test_stop_lets_it_save(ready: Worker) -> None:
    process = ready.start("run", "20", "bash", "-c", SAVES)
    running(ready)
    assert ready.call("stop") == (0, "", "")
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 143
    assert out.startswith("saved\nnode_up: exit=143")
    assert ready.call("stop") == (0, "", "")


def test_stop_kills_what_does_not_end(ready: Worker) -> None:
    process = ready.start(
        "run", "20", "bash", "-c", "trap '' TERM; echo > there; while :; do sleep 0.02; done"
    )
    running(ready)
    assert ready.call("stop")[0] == 0
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 137
    assert "node_up: exit=137" in out


def test_a_second_run_ends_the_first(ready: Worker) -> None:
    first = ready.start("run", "20", "bash", "-c", SAVES)
    running(ready)
    assert ready.call("run", "5", "true")[0] == 0
    assert first.communicate(timeout=10)[0].startswith("saved\n")
    assert first.returncode == 143


def test_sigterm_to_the_script_reaches_the_command(ready: Worker) -> None:
    process = ready.start("run", "20", "bash", "-c", SAVES)
    running(ready)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert out.startswith("saved\nnode_up: exit=143")
    assert process.returncode == 143
