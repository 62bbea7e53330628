"""Run records: atomic files, one owner a folder, metrics without torn or repeated rows."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from research import spec
from research.train import record
from research.train.record import Metrics, claim, locked, write_bytes, write_json
from tests.experiments import EXPERIMENT

EXP = EXPERIMENT


def rows(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Files


def test_json_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text()) == {"x": 1}

    def crash(old: Path, new: Path) -> None:
        assert old.parent == new.parent  # a rename within one folder is atomic
        assert old.read_bytes() == b"new"
        raise OSError("killed here")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="killed here"):
        write_bytes(path, b"new")
    assert json.loads(path.read_text()) == {"x": 1}


# Cards


def test_claim_writes_a_card_once_and_knows_its_own(tmp_path: Path) -> None:
    claim(tmp_path / "w", EXP, ("seed=0",))
    card = (tmp_path / "w" / "card.json").read_bytes()
    claim(tmp_path / "w", EXP)
    assert (tmp_path / "w" / "card.json").read_bytes() == card
    told = json.loads(card)
    assert spec.from_json(told["config"]) == EXP
    assert told["overrides"] == ["seed=0"]
    assert set(told) >= {"git", "dirty", "versions", "device", "command", "created"}


def test_claim_names_what_differs(tmp_path: Path) -> None:
    claim(tmp_path, EXP)
    with pytest.raises(ValueError, match=r"belongs to another config \(optim\.lr: 0\.004 -> 0\.5\)"):
        claim(tmp_path, spec.override(EXP, "optim.lr", 0.5))
    other = EXP
    for path in ("seed", "save_every", "calibration_images", "optim.batch"):
        other = spec.override(other, path, 7)
    with pytest.raises(ValueError, match="and 1 more"):
        claim(tmp_path, other)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="cannot be written: Not a directory"):
        claim(tmp_path / "file" / "w", EXP)
    with pytest.raises(ValueError, match="cannot be written"), locked(tmp_path / "file" / "w"):
        pass
    assert listed(tmp_path) == ["file"]


# Locks


def test_one_process_at_a_time(tmp_path: Path) -> None:
    program = (
        f"import pathlib, research.train.record as r\nwith r.locked(pathlib.Path({str(tmp_path)!r})): pass"
    )
    command = [sys.executable, "-c", program]
    with locked(tmp_path):
        inside = subprocess.run(command, capture_output=True, text=True, check=False)
    assert inside.returncode == 1
    assert "is in use by another process" in inside.stderr
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        _ = 1 / 0
    with locked(tmp_path):  # released, also after an error
        pass


# Metrics


def test_metrics_go_on_after_a_resumed_step(tmp_path: Path) -> None:
    path = tmp_path / "stage" / "metrics.jsonl"
    metrics = Metrics(path, 0)
    for step in (2, 4, 6, 8):
        metrics.add({"step": step, "loss": step / 10})
    metrics.close()
    resumed = Metrics(path, 4)  # the state after step 4 was saved: rows up to 4 stand, later ones come again
    assert [row["step"] for row in resumed.rows] == [2, 4]
    resumed.add({"step": 6, "loss": 0.0})
    resumed.close()
    assert [(row["step"], row["loss"]) for row in rows(path)] == [(2, 0.2), (4, 0.4), (6, 0.0)]


@pytest.mark.parametrize("tail", ['{"step": 6, "lo', '{"step": 6, "loss": 0.1', "\x00\x00"])
def test_a_torn_last_line_is_cut(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "loss": 1.0}\n{"step": 4, "loss": 0.5}\n' + tail)
    metrics = Metrics(path, 6)
    metrics.add({"step": 8, "loss": 0.25})
    metrics.close()
    assert [row["step"] for row in rows(path)] == [2, 4, 8]


def test_every_row_is_on_disk_at_once_and_finite(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", 0)
    metrics.add({"step": 1, "loss": 0.5})
    assert rows(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 0.5}]
    with pytest.raises(AssertionError):
        metrics.add({"step": 2, "loss": float("inf")})
    metrics.close()


# Facts


def test_command_is_what_a_user_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["somewhere/research/run.py", "configs/v2.py", "seed=1"])
    assert record.command() == "python -m research.run configs/v2.py seed=1"
    monkeypatch.setattr(sys, "argv", ["bin/pytest", "-q"])
    assert record.command() == "pytest -q"


def test_versions_leave_out_what_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.metadata.version

    def without_vela(name: str) -> str:
        if name == "ethos-u-vela":
            raise importlib.metadata.PackageNotFoundError(name)
        return there(name)

    assert record.versions()["ethos-u-vela"] == there("ethos-u-vela")
    monkeypatch.setattr(importlib.metadata, "version", without_vela)
    found = record.versions()
    assert "ethos-u-vela" not in found
    assert found["jax"] == there("jax")
    assert found["python"] == sys.version.split()[0]


def test_device_and_time() -> None:
    assert record.device() == "cpu x2"
    assert len(record.now()) == len("2026-01-05T12:00:00Z")
