"""A sweep's bookkeeping, with a fake trial in the place of a training run."""

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from launch import sweep

CONFIG = '''"""A config."""
from research.spec import Experiment, Named

def config():
    return Experiment(name="x", data=None, tracks=Named(), squeeze=Named(), old_chip=None, new_chip=None)

def sweep():
    for lr in (1e-3, 2e-3):
        for seed in (0, 1):
            yield {"optim.lr": lr, "seed": seed}

def short():
    yield {"seed": 7}

def typo():
    yield {"optim.learning": 1.0}

def nothing():
    return []
'''


class FakeTrials:
    """In the place of processes: writes result.json as `research.run` does; fails or stops where told to."""

    def __init__(self, fail: Sequence[int] = (), stop: int | None = None) -> None:
        self.fail, self.stop, self.commands = fail, stop, []

    def __call__(self, command: Sequence[str]) -> int:
        workdir = Path(command[command.index("--workdir") + 1])
        number = int(workdir.name.split("-")[1])
        if number == self.stop:
            raise KeyboardInterrupt
        self.commands.append(list(command))
        workdir.mkdir(parents=True, exist_ok=True)
        if number in self.fail:
            return 3
        row = {"row": 1, "name": "all", "ms_referee": 2.0 + number, "error_px_int8": 1.5, "claim": "-"}
        (workdir / "result.json").write_text(json.dumps({"rows": [{"ms_referee": 9.0}, row]}))
        return 0


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "x.py"
    path.write_text(CONFIG)
    return str(path)


def table(store: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((store / "trials.csv").read_text().splitlines()))


def test_every_point_is_run_once_with_its_overrides(config: str, tmp_path: Path) -> None:
    store, trials = tmp_path / "store", FakeTrials()
    assert sweep.main([config, "--store", str(store), "--smoke"], trials) == 0
    assert trials.commands[2] == [
        sys.executable, "-m", "research.run", config, "optim.lr=0.002", "seed=0",
        "--workdir", str(store / "trial-0002"), "--smoke",
    ]  # fmt: skip
    rows = table(store)
    assert [(row["optim.lr"], row["seed"]) for row in rows] == [
        ("0.001", "0"), ("0.001", "1"), ("0.002", "0"), ("0.002", "1"),
    ]  # fmt: skip
    assert [float(row["ms_referee"]) for row in rows] == [2.0, 3.0, 4.0, 5.0]  # the last row of each table
    assert {row["state"] for row in rows} == {"done"}


def test_finished_trials_are_not_run_again_and_failed_ones_are(config: str, tmp_path: Path) -> None:
    arguments, store = [config, "--store", str(tmp_path / "store")], tmp_path / "store"
    assert sweep.main(arguments, FakeTrials(fail=[1])) == 1
    assert [row["state"] for row in table(store)] == ["done", "failed (3)", "done", "done"]
    again = FakeTrials()
    assert sweep.main(arguments, again) == 0
    assert [command[-1][-4:] for command in again.commands] == ["0001"]
    assert sweep.main(arguments, untouched := FakeTrials()) == 0
    assert not untouched.commands


def test_a_stopped_sweep_ends_like_an_unbroken_one(config: str, tmp_path: Path) -> None:
    assert sweep.main([config, "--store", str(tmp_path / "a")], FakeTrials()) == 0
    assert sweep.main([config, "--store", str(tmp_path / "b")], FakeTrials(stop=2)) == 130
    assert [row["state"] for row in table(tmp_path / "b")] == ["done", "done", "waiting", "waiting"]
    assert sweep.main([config, "--store", str(tmp_path / "b")], FakeTrials()) == 0
    assert (tmp_path / "a/trials.csv").read_bytes() == (tmp_path / "b/trials.csv").read_bytes()


def test_exit_0_without_a_result_is_a_failure(config: str, tmp_path: Path) -> None:
    arguments = [config, "--store", str(tmp_path / "store"), "--sweep", "short"]
    assert sweep.main(arguments, lambda command: 0) == 1


def test_dry_run_writes_nothing(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = FakeTrials()
    assert sweep.main([config, "--store", str(tmp_path / "store"), "--dry-run"], trials) == 0
    assert not trials.commands
    assert not (tmp_path / "store").exists()
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("widths", "has no widths()"),
        ("nothing", "yields no point"),
        ("typo", "learning"),
    ],
)
def test_bad_sweep_is_one_line(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, says: str
) -> None:
    assert sweep.main([config, "--store", str(tmp_path / "store"), "--sweep", name], FakeTrials()) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "store").exists()


def test_missing_config_and_unwritable_store_are_one_line(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert sweep.main([str(tmp_path / "none.py"), "--store", str(tmp_path / "store")], FakeTrials()) == 2
    assert sweep.main([config, "--store", str(tmp_path / "file" / "store")], FakeTrials()) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "none.py" in lines[0]
    assert "file" in lines[1]


def test_a_store_is_one_sweeps_own(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ["--store", str(tmp_path / "store")]
    assert sweep.main([config, *store], FakeTrials()) == 0
    other = FakeTrials()
    assert sweep.main([config, *store, "--sweep", "short"], other) == 2
    assert not other.commands
    assert "another sweep" in capsys.readouterr().err
