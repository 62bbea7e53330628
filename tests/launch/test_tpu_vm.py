"""The life of a TPU VM against a fake gcloud: scripted states, real processes for what its workers do."""

import json
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launch import gke, tpu_vm
from launch.cloud_end import alone
from tests.launch.cloud import PINS, QUEUED, Cloud

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GOLDENS = ROOT / "launch" / "goldens"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    return Cloud(tmp_path / "cloud", monkeypatch)


def test_a_preempted_trial_goes_on_on_the_next_slice(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    preempted = [*QUEUED, ["ACTIVE", "store/step-3"], "SUSPENDING", "SUSPENDED"]
    cloud.script(preempted, [*QUEUED, "ACTIVE"])
    assert tpu_vm.main(cloud.words("--spot", steps=20)) == 0
    first, second = cloud.starts
    assert first == "from 0"
    assert int(second.split()[1]) >= 4  # nothing that was stored is done again
    assert json.loads((cloud.store / "result.json").read_text()) == {"steps": 20}
    assert len(cloud.calls("create")) == len(cloud.calls("delete")) == 2
    assert not cloud.exists
    assert cloud.ledger["chip_seconds"] > 0
    assert cloud.ledger["made"] is False
    told = capsys.readouterr()
    assert "step 19" in told.out
    assert "t: lost: SUSPENDING during the command" in told.err
    assert told.err.splitlines()[-1].startswith("done; ")


def test_all_workers_run_it_and_all_must_be_done(cloud: Cloud) -> None:
    cloud.script([*QUEUED, "ACTIVE"], workers=4)
    assert tpu_vm.main(cloud.words("--worker", "all", topology="v5e:4x4")) == 0
    assert len(cloud.starts) == 4
    assert cloud.calls("create") == ["create"]


@pytest.mark.parametrize(("code", "expected"), [(3, 1), (2, 2)])
def test_a_command_that_fails_by_itself_is_not_run_again(cloud: Cloud, code: int, expected: int) -> None:
    assert tpu_vm.main(cloud.words(code=code)) == expected
    assert cloud.starts == ["from 0"]
    assert not cloud.exists


def test_a_command_that_a_signal_ended_is_run_again_in_place_then_elsewhere(cloud: Cloud) -> None:
    assert tpu_vm.main(cloud.words("--max-losses", "2", code=143)) == 1
    assert len(cloud.starts) == 3
    assert len(cloud.calls("create")) == 2  # twice in vain on one slice, then another one
    assert not cloud.exists


def test_the_budget_ends_it_saved_and_deleted(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    words = cloud.words("--max-chip-hours", "0.002", steps=1000)  # 0.9 s of 8 chips
    assert tpu_vm.main(words) == 1
    assert not cloud.exists
    assert "budget spent" in capsys.readouterr().err
    assert cloud.ledger["chip_seconds"] >= 0.002 * 3600
    before = len(cloud.calls())
    assert tpu_vm.main(words) == 1  # the ledger remembers
    assert set(cloud.calls()[before:]) == {"describe"}
    assert not (cloud.store / "result.json").exists()


def test_three_refusals_in_a_row_are_enough(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.script(["ACCEPTED", "FAILED"])
    assert tpu_vm.main(cloud.words()) == 1
    assert len(cloud.calls("create")) == len(cloud.calls("delete")) == 3
    assert "3 requests in a row FAILED: no capacity" in capsys.readouterr().err
    assert not cloud.exists


def test_gcloud_may_fail_for_a_while(cloud: Cloud) -> None:
    bad = "UNAVAILABLE: try later"
    cloud.script([*QUEUED, "ACTIVE"], describe=["", bad, bad], delete=[bad, bad], scp=[bad], ssh=[bad])
    assert tpu_vm.main(cloud.words()) == 0
    assert not cloud.exists
    assert len(cloud.calls("delete")) >= 3


def test_a_slice_that_cannot_be_deleted_is_shouted_about(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.tpu_life.DELETE_TRIES", 3)
    cloud.script(["ACTIVE"], delete=["PERMISSION_DENIED: no"] * 99)
    assert tpu_vm.main(cloud.words()) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "STILL THERE AND BILLED, DELETE IT BY HAND: gcloud compute tpus queued-resources delete t" in last
    assert cloud.exists
    assert cloud.ledger["made"]
    cloud.script(["ACTIVE"])
    (cloud.folder / "world.json").write_text('{"life": 0, "at": 0, "sessions": []}')
    assert tpu_vm.main(cloud.words("--delete")) == 0
    assert not cloud.exists


def test_what_gcloud_refuses_to_create_is_one_line(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.script(["ACTIVE"], create=["RESOURCE_EXHAUSTED: quota"])
    assert tpu_vm.main(cloud.words()) == 2
    assert (
        "gcloud creates nothing: ERROR: (gcloud.compute.tpus) RESOURCE_EXHAUSTED" in capsys.readouterr().err
    )
    assert cloud.calls("delete") == []


def test_versions_that_differ_are_refused_before_the_command_runs(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (cloud.folder / "versions").write_text(PINS.replace("jax==0.10.2", "jax==0.9.0"))
    assert tpu_vm.main(cloud.words()) == 2
    assert "jax is 0.9.0, constraints.txt says 0.10.2" in capsys.readouterr().err
    cloud.script(["ACTIVE"], workers=4)
    for number in range(4):
        (cloud.folder / f"versions-worker-{number}").write_text(PINS + f"extra=={number // 3}\n")
    monkeypatch.setenv("FAKE_VERSIONS", str(cloud.folder / "versions-{0}"))
    assert tpu_vm.main(cloud.words(topology="v5e:4x4")) == 2
    assert "the workers differ" in capsys.readouterr().err
    assert not (cloud.store / "log").exists()
    assert not cloud.exists


def until(what: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def started(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """The program in a process of its own, for signals."""
    heard = "import signal, sys; [signal.signal(number, signal.default_int_handler) for number in (1, 2, 15)]"
    program = f"{heard}; from launch.tpu_vm import main; sys.exit(main())"  # as in a terminal, however tests are run
    command, pipe = [sys.executable, "-c", program, *words], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_deletes_and_says_so(cloud: Cloud, number: int) -> None:
    cloud.script([*QUEUED, "ACTIVE"])
    with started(cloud.words(steps=1000)) as process:
        until((cloud.store / "step-3").exists)
        process.send_signal(number)
        process.send_signal(number)  # an impatient second one changes nothing
        out, error = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert not cloud.exists
    assert cloud.calls()[-3:] == ["describe", "delete", "describe"]
    assert f"stopped by {signal.Signals(number).name}" in error.splitlines()[-1]
    assert "node_up: exit=143" in out  # the command was told to save, before its machine went


def test_a_killed_program_leaves_a_ledger_with_which_the_next_one_goes_on(cloud: Cloud) -> None:
    cloud.script([*QUEUED, "ACTIVE"])
    with started(cloud.words(steps=25)):
        until((cloud.store / "step-3").exists)
    assert cloud.exists
    assert cloud.ledger["made"]
    assert tpu_vm.main(cloud.words(steps=25)) == 0
    assert cloud.calls("create") == ["create"]
    assert len(cloud.starts) == 2
    assert cloud.starts[1] != "from 0"
    assert not cloud.exists


def test_another_ones_slice_is_left_alone(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    (cloud.folder / "world.json").write_text('{"life": 0, "at": 0, "sessions": []}')
    assert tpu_vm.main(cloud.words()) == 2
    assert "--adopt takes it over" in capsys.readouterr().err
    assert cloud.calls() == ["describe"]
    assert tpu_vm.main(cloud.words("--adopt")) == 0
    assert cloud.calls("create") == []
    assert not cloud.exists


def test_only_one_program_looks_after_a_slice(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    with alone(cloud.folder / "ledger.json"):
        assert tpu_vm.main(cloud.words()) == 2
    assert "another program is at work" in capsys.readouterr().err
    assert cloud.calls() == []


def test_without_gcloud_or_an_answer_nothing_starts(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.script(["ACTIVE"], describe=["You do not currently have an active account selected."])
    assert tpu_vm.main(cloud.words()) == 2
    monkeypatch.setenv("PATH", str(cloud.folder))
    assert tpu_vm.main(cloud.words()) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "active account" in errors[0]
    assert "gcloud is not installed here" in errors[1]


def test_a_full_disk_for_the_ledger_stops_it_before_anything_is_made(cloud: Cloud) -> None:
    (cloud.folder / "ledger.json.part").mkdir()
    assert tpu_vm.main(cloud.words()) == 2
    assert cloud.calls("create") == []


BAD = [
    (["--topology", "v5e:3x3"], "v5e comes as"),
    (["--name", "T_1"], "lower-case"),
    (["--max-chip-hours", "0"], "--max-chip-hours must be"),
    (["--max-chip-hours", "nan"], "--max-chip-hours must be"),
    (["--hours", "9"], "over the budget of 40"),
    (["--code", "none.tar.gz"], "no such file"),
    (["--", "python", "-m", "launch.sweep", "c.py", "--store", "sweeps/a"], "would go with the machine"),
    (["--", "python", "-m", "launch.sweep", "c.py", "--store=sweeps/a"], "would go with the machine"),
    (["--", "python", "-m", "launch.trial", "sweeps/a", "0"], "would go with the machine"),
    (["--"], "say what to run"),
]
PLAIN = [
    "--name",
    "v2",
    "--project",
    "my-project",
    "--zone",
    "us-west4-a",
    "--topology",
    "v5e:4x4",
    "--max-chip-hours",
    "40",
]
SWEEP = shlex.split("-- python -m launch.sweep configs/v2.py --store gs://my-bucket/v2 --slots 1")


@pytest.mark.parametrize(("words", "says"), BAD)
def test_bad_input_is_one_line(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    command = [] if words[0] == "--" else SWEEP
    assert tpu_vm.main([*PLAIN, *words, *command]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert cloud.calls() == []


DRY = {
    "tpu_vm.v5e-2x4-spot.txt": ["--topology", "v5e:2x4", "--spot", "--hours", "4.5", *SWEEP],
    "tpu_vm.v5p-2x2x4-trial.txt": [
        *("--topology", "v5p:2x2x4", "--worker", "all", "--runtime", "v2-alpha-tpuv5"),
        *("--create-flag=--internal-ips", "--create-flag=--network=lab", "--connect-flag=--internal-ip"),
        *shlex.split("-- python -m launch.trial gs://my-bucket/v2 0"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", DRY)
def test_dry_run_is_the_golden_file_and_runs_nothing(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert tpu_vm.main([*PLAIN, "--dry-run", *DRY[name]]) == 0
    assert capsys.readouterr().out == (GOLDENS / name).read_text()
    assert cloud.calls() == []


def test_the_code_is_a_commit_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="--code FILE is needed"):
        tpu_vm.pack("dist/a.tar.gz")
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "a.py").write_text("1\n")
    for words in (["init", "-q"], ["add", "a.py"], [*author, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", *words], check=True)
    tpu_vm.pack("dist/a.tar.gz")
    with tarfile.open("dist/a.tar.gz") as archive:
        assert archive.getnames() == ["a.py"]
    (tmp_path / "a.py").write_text("2\n")
    with pytest.raises(ValueError, match=r"commit first.*a\.py"):
        tpu_vm.pack("dist/a.tar.gz")


def test_the_commands_in_the_readme_are_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "launch" / "README.md").read_text().replace("\\\n", " ")
    ours = {"launch.tpu_vm": tpu_vm.main, "launch.gke": gke.main}
    for line in text.splitlines():
        words = shlex.split(line, comments=True) if line.startswith("    python -m launch.") else [""] * 3
        if words[2] in ours:
            assert "--dry-run" in words
            assert ours[words[2]](words[3:]) == 0, line
    assert "error" not in capsys.readouterr().err
