"""The sweep's command line from end to end, with a small program in the place of a trial."""

import contextlib
import csv
import json
import signal
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from launch import sweep
from launch.store import Busy, LocalStore, open_store

CONFIG = '''"""A config."""
from launch.plan import Float, Int, Sweep
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

def planned():
    space = {"optim.lr": Float(1e-3, 1e-1, log=True), "seed": Int(0, 9)}
    objectives = {"ms_referee": "min", "error_px_int8": "min"}
    return Sweep(space=space, objectives=objectives, constraints={}, trials=5, sampler="random", generation=2,
                 seed=0, max_failures=2)

def planned_typo():
    return Sweep(space={"optim.learning": Float(0, 1)}, objectives={"ms_referee": "min"}, constraints={}, trials=2,
                 sampler="random", generation=2, seed=0)
'''
# A trial in the place of launch.trial: STORE/orders/NUMBER says with which code it ends, or which signal its driver
# gets; without an order it writes a result as research.run does.
TRIAL = """
import json, os, sys, time
from pathlib import Path
store, number = Path(sys.argv[1]), int(sys.argv[2])
place = store / "trials" / f"{number:05d}"
spec = json.loads((place / "spec.json").read_text())
(place / "run").mkdir(exist_ok=True)
with (place / "ran.txt").open("a") as ran:
    ran.write(" ".join(spec["overrides"]) + "\\n")
order = store / "orders" / str(number)
if order.exists():
    kind, value = order.read_text().split()
    (place / "run" / "log.txt").write_text("as ordered\\n")
    if kind == "exit":
        os._exit(int(value))
    os.kill(os.getppid(), int(value))
    time.sleep(60)
row = {"row": 1, "name": "all", "ms_referee": 2.0 + number, "error_px_int8": 9.5 - number, "claim": "-"}
(place / "result.json").write_text(json.dumps({"number": number, "rows": [{"ms_referee": 9.0}, row]}))
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "x.py"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def run(*words: object) -> int:
    return sweep.main([str(word) for word in words], [sys.executable, "-c", TRIAL])


def order(store: Path, number: int, what: str = "") -> None:
    """Gives a trial an order, or takes it back."""
    path = store / "orders" / str(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(what) if what else path.unlink()


def table(store: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((store / "trials.csv").read_text().splitlines()))


def states(store: Path) -> list[str]:
    return [row["state"].split()[0] for row in table(store)]


def runs(store: Path) -> list[int]:
    """How often each trial was started."""
    return [len(path.read_text().splitlines()) for path in sorted(store.glob("trials/*/ran.txt"))]


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


# Running


def test_every_point_is_run_once_with_its_overrides(config: str, store: Path) -> None:
    assert run(config, "--store", store, "--smoke", "--slots", 2) == 0
    spec = json.loads((store / "trials/00002/spec.json").read_text())
    assert spec["overrides"] == ["optim.lr=0.002", "seed=0"]
    assert (spec["config"], spec["smoke"]) == (config, True)
    rows = table(store)
    assert [(row["optim.lr"], row["seed"]) for row in rows] == [
        ("0.001", "0"), ("0.001", "1"), ("0.002", "0"), ("0.002", "1"),
    ]  # fmt: skip
    assert [float(row["ms_referee"]) for row in rows] == [2.0, 3.0, 4.0, 5.0]  # the last row of each table
    assert states(store) == ["done"] * 4
    assert runs(store) == [1] * 4


def test_a_planned_sweep_goes_generation_by_generation(config: str, store: Path, tmp_path: Path) -> None:
    arguments = (config, "--sweep", "planned", "--slots", 2)
    assert run(*arguments, "--store", store) == 0
    assert [path.name for path in sorted((store / "plan").iterdir())] == [
        "gen_0000.json", "gen_0001.json", "gen_0002.json",
    ]  # fmt: skip
    assert runs(store) == [1] * 5
    assert run(*arguments, "--store", tmp_path / "again") == 0
    assert (store / "trials.csv").read_bytes() == (tmp_path / "again/trials.csv").read_bytes()
    assert (store / "pareto.csv").is_file()
    assert (store / "pareto.md").is_file()


def test_fewer_trials_can_be_asked_for(config: str, store: Path) -> None:
    assert run(config, "--sweep", "planned", "--trials", 1, "--store", store) == 0
    assert runs(store) == [1]


def test_a_broken_trial_is_given_up_and_the_others_finish(
    config: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order(store, 1, "exit 3")
    assert run(config, "--store", store) == 1
    assert states(store) == ["done", "failed", "done", "done"]
    assert runs(store) == [1, 3, 1, 1]
    failed = json.loads((store / "trials/00001/failed.json").read_text())
    assert (failed["code"], failed["log"]) == (3, "as ordered\n")
    assert "trial 1 failed (3): optim.lr=0.001 seed=1" in capsys.readouterr().out


def test_finished_trials_are_not_run_again_and_failed_ones_when_asked(config: str, store: Path) -> None:
    order(store, 1, "exit 3")
    assert run(config, "--store", store) == 1
    assert run(config, "--store", store) == 1
    assert runs(store) == [1, 3, 1, 1]
    order(store, 1)
    assert run("retry-failed", "--store", store) == 0
    assert run(config, "--store", store) == 0
    assert runs(store) == [1, 4, 1, 1]
    assert states(store) == ["done"] * 4


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_sweep_ends_like_an_unbroken_one(
    config: str, store: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    order(store, 2, f"kill {int(number)}")
    assert run(config, "--store", store) == code
    assert states(store) == ["done", "done", "waiting", "waiting"]
    order(store, 2)
    assert run(config, "--store", store) == 0
    assert run(config, "--store", tmp_path / "unbroken") == 0
    assert (store / "trials.csv").read_bytes() == (tmp_path / "unbroken/trials.csv").read_bytes()


def test_dry_run_writes_nothing(config: str, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, "--store", store, "--dry-run", "--smoke") == 0
    assert not store.exists()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "-m research.run" in lines[3]
    assert lines[3].endswith("--smoke")
    assert "optim.lr=0.002 seed=1 --workdir" in lines[3]


# Bad input


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("widths", "has no widths()"),
        ("nothing", "yields no point"),
        ("typo", "learning"),
        ("planned_typo", "learning"),
    ],
)
def test_bad_sweep_is_one_line(
    config: str, store: Path, capsys: pytest.CaptureFixture[str], name: str, says: str
) -> None:
    assert run(config, "--store", store, "--sweep", name) == 2
    assert says in one_line(capsys)
    assert not store.exists()


def test_missing_config_and_unwritable_store_are_one_line(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "none.py", "--store", tmp_path / "store") == 2
    assert "none.py" in one_line(capsys)
    assert run(config, "--store", tmp_path / "file" / "store") == 2
    assert "file" in one_line(capsys)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--on", "ray", "--needs", "TPU"), "NAME=NUMBER"),
        (("--slots", "-1"), "--slots"),
        (("--trials", "0"), "yields no point"),
    ],
)
def test_bad_options_are_one_line(
    config: str, store: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    assert run(config, "--store", store, *words) == 2
    assert says in one_line(capsys)


def test_a_store_is_one_sweeps_own(config: str, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, "--store", store) == 0
    assert run(config, "--store", store, "--sweep", "short") == 2
    assert "another sweep" in one_line(capsys)
    assert runs(store) == [1] * 4


def test_a_store_has_one_driver(config: str, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_store(str(store)).lease("driver", 60.0):
        assert run(config, "--store", store) == 2
    assert "another driver" in one_line(capsys)
    assert not runs(store)


def test_a_lease_that_is_not_renewed_is_waited_for_and_one_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep, "WAIT_S", 0.0)

    class Elsewhere(LocalStore):
        """Its lease is held by another machine until as many looks were taken as there are deadlines."""

        deadlines: ClassVar[list[float | None]] = []

        def lease(self, name: str, ttl_s: float) -> contextlib.AbstractContextManager[None]:
            if self.deadlines:
                raise Busy("held by process 1 on elsewhere", self.deadlines.pop(0))
            return super().lease(name, ttl_s)

    store = Elsewhere(str(tmp_path))
    store.deadlines[:] = [50.0] * 5
    with contextlib.ExitStack() as stack:
        sweep.lead(store, stack)
    assert capsys.readouterr().err == "waiting up to 30 s, in case it is dead: held by process 1 on elsewhere\n"
    for deadlines in ([None], [50.0, 50.0, 57.5]):
        store.deadlines[:] = deadlines
        with contextlib.ExitStack() as stack, pytest.raises(ValueError, match="another driver works"):
            sweep.lead(store, stack)


# The other words


def test_status_tells_how_it_stands(config: str, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order(store, 0, "exit 3")
    assert run(config, "--sweep", "planned", "--store", store) == 1
    capsys.readouterr()
    assert run("status", "--store", store) == 0
    *trials, last = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in trials[:2]] == ["trial 0 failed", "trial 1 done"]
    assert "done 4 of 5, failed 1, best ms_referee 3 (trial 1), best error_px_int8 5.5 (trial 4)" in last


def test_table_is_written_again_from_the_store(config: str, store: Path) -> None:
    assert run(config, "--sweep", "planned", "--store", store) == 0
    before = (store / "trials.csv").read_bytes()
    (store / "trials.csv").unlink()
    assert run("table", "--store", store) == 0
    assert (store / "trials.csv").read_bytes() == before


def test_a_cancelled_sweep_stops_and_goes_on_when_asked(
    config: str, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(config, "--store", store) == 0
    assert run("cancel", "--store", store) == 0
    assert open_store(str(store)).read("cancel.json")
    assert run(config, "--store", store) == 0
    assert not open_store(str(store)).read("cancel.json")


@pytest.mark.parametrize("word", ["status", "table", "cancel", "retry-failed"])
def test_an_empty_store_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert run(word, "--store", tmp_path) == 2
    assert "no sweep" in one_line(capsys)
