"""Several processes on this machine: they find each other, one owns the disk, they stop together, numbers agree."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from launch.distributed import COORDINATOR, PROCESS, PROCESSES, Place, detect, main, start, verdict, wait
from research.train.arms import Arm, stage_key
from research.train.fit import fit
from tests.conftest import CACHE
from tests.smoke import CONFIG, ROOT, smoke, v1_steps

PATIENCE_S = 300.0
HEAD = """
import json, os, signal, sys, time
import numpy as np
import jax
from launch.distributed import join
join(10)
"""
TOGETHER = (
    HEAD
    + """
from pathlib import Path
from research.train import hosts
from research.train.keeper import Keeper
from research.train.mesh import data_mesh, own_rows, place, place_rows, replicated
from research.train.signals import noting

me, said = jax.process_index(), {}
mesh = data_mesh()
said["shared"] = hosts.share({"from": me})
try:
    hosts.by_first(lambda: open("no/such/file"))
except OSError as error:
    said["error"] = error.errno
rows = own_rows(mesh, 8)
batch = place_rows({"x": np.arange(8.0)[rows] + 0.5}, rows, mesh, 8)["x"]
said["rows"], said["sum"] = rows.tolist(), float(jax.jit(lambda x: (x * x).sum())(batch))
keeper = Keeper(Path(sys.argv[1]) / ("disk" if me == 0 else "none"), mesh)
state = place({"w": np.arange(3.0, dtype=np.float32)}, replicated(mesh))
keeper.save(5, state, {})
keeper.close()
keeper = Keeper(Path(sys.argv[1]) / ("disk" if me == 0 else "none"), mesh)
step, found = keeper.restore(state, print)
keeper.close()
said["restored"] = [step, np.asarray(found["w"]).tolist()]
with noting():
    stop, at = hosts.Agreement(mesh), 0
    while not (number := stop.told()):
        at += 1
        if at == 3 and me == 1:
            os.kill(os.getpid(), signal.SIGTERM)
    said["stopped"] = [at, number]
Path(sys.argv[1], f"{me}.json").write_text(json.dumps(said))
jax.distributed.shutdown()
"""
)
DOUBLES = (
    HEAD
    + """
import jax.numpy as jnp
from pathlib import Path
from research.spec import Named
from research.train.arms import Arm
from research.train.fit import fit
from research.train.hosts import compile_together, whole
from research.train.loop import feed, pinned
from research.train.mesh import data_mesh, place, replicated, split_wide
from research.train.step import compiled_step, initial_state, program_of
from research import nets
from tests.smoke import smoke, v1_steps

exp = smoke(v1_steps(6), "optim.lr=3e-3")
model, wide = int(sys.argv[2]), 8
mesh = data_mesh(0, model)
(stage,) = exp.tracks["v1"].stages
start = nets.init(exp.tracks["v1"].net, jax.random.fold_in(jax.random.key(exp.seed), 7))
program, hyper = program_of(exp.tracks["v1"].net, Named(), exp.optim, exp.new_chip, None, stage, exp.seed)
state = jax.tree.map(np.asarray, initial_state(program, hyper, *start))
stream, losses = feed(exp.data, exp.optim.batch, mesh), []
given = [stream(exp.seed, step) for step in range(6)]

def doubles(tree):
    return jax.tree.map(lambda leaf: leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf, tree)

with jax.enable_x64(True):
    state = doubles(state)
    lies = split_wide(mesh, state, wide)
    state, step = place(state, lies), compiled_step.__wrapped__(program, mesh)
    step = pinned(step, lies) if model > 1 else step
    split = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
    given = [jax.jit(doubles)(batch) for batch in given]
    compile_together(step, hyper, {}, state, given[0])
    for batch in given:
        state, terms = step(hyper, {}, state, batch)
        losses.append(float(terms["loss"]))
    leaves = jax.tree.leaves(whole(state))
if jax.process_index() == 0:
    np.savez(sys.argv[1], *[np.asarray(leaf) for leaf in leaves], losses=losses, split=split)
if jax.process_count() > 1:
    jax.distributed.shutdown()
"""
)


def run_all(program: str, tmp_path: Path, processes: int, devices: int, *words: str) -> None:
    """A program as so many processes; fails with what they said."""
    said = tmp_path / "said"
    said.mkdir(exist_ok=True)
    children = start([sys.executable, "-c", program, *words], processes, devices, said)
    codes = wait(children, 5.0)
    assert codes == [0] * processes, [path.read_text()[-2000:] for path in said.iterdir()]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children find this checkout and the compiled programs of earlier runs."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(CACHE / "jax-tests"))


# Finding each other


def test_what_the_environment_says() -> None:
    plain = {COORDINATOR: "a:1", PROCESSES: "4", PROCESS: "3"}
    assert detect(plain, has_tpu=True) == Place("plain", "a:1", 4, 3)
    gke = {"TPU_WORKER_HOSTNAMES": "p-0.s,p-1.s", "TPU_WORKER_ID": "1"}
    assert detect(gke, has_tpu=True) == Place("gke", "p-0.s:8476", 2, 1)
    assert detect({"TPU_WORKER_HOSTNAMES": "p-0.s", "TPU_WORKER_ID": "0"}, has_tpu=True) is None
    assert detect(gke | {"MEGASCALE_NUM_SLICES": "2"}, has_tpu=True) == Place("tpu")
    assert detect({}, has_tpu=True) == Place("tpu")
    assert detect({}, has_tpu=False) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({PROCESSES: "2"}, "set all of"),
        ({COORDINATOR: "a:1", PROCESSES: "2", PROCESS: "2"}, "process '2' of '2' is none"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "process '' of '2' is none"),
    ],
)
def test_half_an_environment_is_refused(given: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        detect(given, has_tpu=False)


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([0, 0], 0),
        ([143, 143], 143),
        ([130, 143], 130),
        ([0, 1], 1),
        ([-6, 1], 1),
        ([143, -9], 134),
        ([134, -9], 134),
    ],
)
def test_one_exit_code_for_all(codes: list[int], code: int) -> None:
    assert verdict(codes) == code


def test_bad_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--processes", "2"]) == 2
    assert main(["--processes", "2", "--devices", "0", "configs/v2.py"]) == 2
    assert capsys.readouterr().err.count("error: ") == 2


# Two processes


def test_two_processes_share_and_stop_together(tmp_path: Path) -> None:
    run_all(TOGETHER, tmp_path, 2, 2, str(tmp_path))
    one, two = (json.loads((tmp_path / f"{number}.json").read_text()) for number in (0, 1))
    assert one.pop("rows") == [0, 1, 2, 3]
    assert two.pop("rows") == [4, 5, 6, 7]
    assert one == two
    assert one["shared"] == {"from": 0}
    assert one["error"] == 2
    assert one["sum"] == sum((i + 0.5) ** 2 for i in range(8))
    assert one["restored"] == [5, [0.0, 1.0, 2.0]]
    assert one["stopped"][0] >= 3
    assert one["stopped"][1] == signal.SIGTERM
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_one_device_two_devices_and_two_processes_are_the_same(tmp_path: Path) -> None:
    found = {}
    for processes, devices, model in ((1, 1, 1), (1, 2, 1), (1, 2, 2), (2, 2, 1), (2, 2, 2)):
        file = tmp_path / f"{processes}x{devices}x{model}.npz"
        run_all(DOUBLES, tmp_path, processes, devices, str(file), str(model))
        found[processes, devices, model] = dict(np.load(file))
    one = found.pop((1, 1, 1))
    for setting, other in found.items():
        apart = max(float(np.max(np.abs(one[name] - other[name]))) for name in one if name != "split")
        print(setting, "largest difference", apart)
        assert apart < 1e-9
        assert (other["split"] > 0) == (setting[2] > 1)


LONG = (v1_steps(400), "save_every=40")


def wait_for(child: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    begin = time.monotonic()
    while not reached():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() - begin < PATIENCE_S
        time.sleep(0.05)


def children_of(parent: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def last_loss(folder: Path) -> float:
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["loss"]


def run_two(workdir: Path, *words: str) -> subprocess.Popen[str]:
    place = ["-m", "launch.distributed", "--processes", "2", "--devices", "2", "--heartbeat", "10"]
    command = [sys.executable, *place, str(CONFIG), "--smoke", "--workdir", str(workdir), *LONG, *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def first_line(folder: Path) -> bool:
    metrics = folder / "metrics.jsonl"
    return metrics.exists() and metrics.read_text().count("\n") >= 2


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_sigterm_to_one_saves_one_step_and_one_process_goes_on(tmp_path: Path, told: int) -> None:
    exp, arm, workdir = smoke(*LONG), Arm("v1"), tmp_path / "run"
    folder = workdir / "stages" / stage_key(exp, arm, 0)
    child = run_two(workdir)
    wait_for(child, lambda: first_line(folder))
    os.kill(children_of(child.pid)[told], signal.SIGTERM)
    _, errors = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 143, errors
    assert errors == "interrupted; the same command goes on from here\n"
    saved = max(int(path.name) for path in (folder / "steps").iterdir() if path.name.isdigit())
    assert 40 <= saved < 400
    fit(exp, arm, workdir, devices=1)
    fit(exp, arm, tmp_path / "whole", devices=1)
    unbroken = last_loss(tmp_path / "whole" / "stages" / folder.name)
    assert last_loss(folder) == pytest.approx(unbroken, rel=0.2)


@pytest.mark.slow
def test_a_killed_process_is_noticed(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    folder = workdir / "stages" / stage_key(smoke(*LONG), Arm("v1"), 0)
    child = run_two(workdir)
    wait_for(child, lambda: first_line(folder))
    os.kill(children_of(child.pid)[1], signal.SIGKILL)
    begin = time.monotonic()
    child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 134
    assert time.monotonic() - begin < 60.0
