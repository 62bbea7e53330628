"""What the life of a TPU VM rests on; its courses, with a fake gcloud, are in test_tpu_vm.py."""

import os
from pathlib import Path

import pytest

from launch.tpu_commands import Target
from launch.tpu_life import BILLED, LOST, Job, TpuVm, look
from launch.tpu_types import parse_slice

STATES = {
    *("CREATING", "ACCEPTED", "PROVISIONING", "FAILED", "DELETING", "ACTIVE"),
    *("SUSPENDING", "SUSPENDED", "WAITING_FOR_RESOURCES"),
}  # fmt: skip


def job(**more: object) -> Job:
    return Job(Target("t", "p", "z"), parse_slice("v5e:4x4"), "r", ("true",), "a.tar.gz", **more)


def gcloud(folder: Path, patch: pytest.MonkeyPatch, script: str) -> None:
    """A gcloud that is a shell script."""
    (folder / "gcloud").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "gcloud").chmod(0o755)
    patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_states_are_the_apis() -> None:
    assert set(BILLED) <= STATES
    assert set(LOST) - {"ABSENT"} <= STATES


def test_a_command_ends_before_the_budget_does() -> None:
    assert job(save_s=120.0).run_seconds(1000.0) == 880
    assert job(save_s=120.0).run_seconds(60.0) == 1


def test_all_hosts_or_one_run_it() -> None:
    assert job(worker="all").runners == 4
    assert job().runners == 1


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("""echo '{"state": {"state": "ACTIVE"}}'""", ("ACTIVE", "")),
        (
            """echo '{"state": {"state": "FAILED", "failedData": {"error": {"message": "why"}}}}'""",
            ("FAILED", "why"),
        ),
        ("echo 'ERROR: NOT_FOUND: x' >&2; exit 1", ("ABSENT", "")),
        ("echo 'ERROR: PERMISSION_DENIED' >&2; exit 1", ("UNKNOWN", "ERROR: PERMISSION_DENIED (exit 1)")),
        ("echo null", ("UNKNOWN", "gcloud answers 'null\\n'")),
        ("""echo '{"state": {}}'""", ("UNKNOWN", """gcloud answers '{"state": {}}\\n'""")),
        ("echo", ("UNKNOWN", "gcloud answers '\\n'")),
        ("""echo '{"state": "ACTIVE"}'""", ("UNKNOWN", """gcloud answers '{"state": "ACTIVE"}\\n'""")),
    ],
)
def test_a_state_or_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: tuple[str, str]
) -> None:
    gcloud(tmp_path, monkeypatch, script)
    assert look(Target("t", "p", "z")) == expected


def test_out_of_sight_is_billed_if_it_was_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = TpuVm(job(), tmp_path / "ledger.json")
    gcloud(tmp_path, monkeypatch, "exit 1")
    vm.adopt()
    assert vm.state() == "UNKNOWN"
    assert vm.meter.since is None
    gcloud(tmp_path, monkeypatch, """echo '{"state": {"state": "ACTIVE"}}'""")
    vm.state()
    gcloud(tmp_path, monkeypatch, "exit 1")
    vm.state()
    vm.state()
    assert vm.meter.since is not None
    assert vm.meter.chip_seconds > 0


def test_a_full_disk_does_not_stop_the_deletion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vm = TpuVm(job(poll_s=0.01), tmp_path / "ledger.json")
    vm.adopt()
    (tmp_path / "ledger.json.part").mkdir()  # no file can be written there
    (tmp_path / "there").write_text("")
    lines = [
        f"cd {tmp_path}",
        'case "$*" in *delete*) rm there; exit;; esac',
        "test -e there || { echo NOT_FOUND >&2; exit 1; }",
        """echo '{"state": {"state": "ACTIVE"}}'""",
    ]
    gcloud(tmp_path, monkeypatch, "\n".join(lines))
    vm.delete()
    assert not (tmp_path / "there").exists()
    assert "cannot write" in capsys.readouterr().err
