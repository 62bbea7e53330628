"""Manifests for GKE: goldens, every typo refused, foreign parsers, and a life against a fake kubectl."""

import copy
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch import gke

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GOLDENS = ROOT / "launch" / "goldens"
SWEEP = "-- python -m launch.sweep configs/v2.py --store gs://my-bucket/v2 --on ray --address auto"
PLAIN = ["--name", "v2", "--image", "my-registry/npu-squeeze:2e91792", "--max-chip-hours", "40"]
DRY = {
    "gke.jobset-v5e-4x4-spot.yaml": [
        *("jobset", "--topology", "v5e:4x4", "--spot", "--hours", "2", "--namespace", "lab"),
        *shlex.split("-- python -m launch.trial gs://my-bucket/v2 0"),
    ],
    "gke.jobset-v6e-2x4.yaml": [
        *("jobset", "--topology", "v6e:2x4", "--max-restarts", "3"),
        *shlex.split("-- python -m launch.sweep configs/v2.py --store gs://my-bucket/v2 --slots 1"),
    ],
    "gke.rayjob-v5e-2x4-spot.yaml": [
        *("rayjob", "--topology", "v5e:2x4", "--slices", "4", "--spot", "--ray-version", "2.60.0"),
        *("--service-account", "sweeps", *shlex.split(SWEEP)),
    ],
    "gke.rayjob-v5p-2x2x2.yaml": [
        *("rayjob", "--topology", "v5p:2x2x2", "--ray-version", "2.60.0", *shlex.split(SWEEP)),
    ],
}


def golden(name: str) -> Any:
    return yaml.safe_load((GOLDENS / name).read_text())


def keys(tree: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every key of every dict, at any depth."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield (*place, key)
            yield from keys(value, (*place, key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from keys(value, (*place, number))


def renamed(tree: Any, place: tuple[Any, ...], name: str) -> Any:
    """The manifest with one key spelled differently."""
    changed = copy.deepcopy(tree)
    inner = changed
    for step in place[:-1]:
        inner = inner[step]
    inner[name] = inner.pop(place[-1])
    return changed


@pytest.mark.parametrize("name", DRY)
def test_dry_run_is_the_golden_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = DRY[name]
    assert gke.main([words[0], *PLAIN, *words[1:3], "--dry-run", *words[3:]]) == 0
    assert capsys.readouterr().out == (GOLDENS / name).read_text()


@pytest.mark.parametrize("name", DRY)
def test_any_key_renamed_at_any_depth_is_refused(name: str) -> None:
    manifest, kind = golden(name), name.split(".")[1].split("-")[0]
    assert gke.checked(kind, manifest) == manifest
    places = list(keys(manifest))
    assert len(places) > 50
    for place in places:
        key = place[-1]
        for typo in {key + "s", key[:-1], key.swapcase(), key.replace("-", "_") + "_"}:
            with pytest.raises(ValueError, match="manifest: "):
                gke.checked(kind, renamed(manifest, place, typo))


@pytest.mark.parametrize("name", DRY)
def test_any_key_left_out_is_refused(name: str) -> None:
    manifest, kind = golden(name), name.split(".")[1].split("-")[0]
    optional = {"tolerations", "cloud.google.com/gke-spot"}
    for place in keys(manifest):
        if place[-1] not in optional:
            changed = renamed(manifest, place, "x")
            inner = changed
            for step in place[:-1]:
                inner = inner[step]
            del inner["x"]
            with pytest.raises(ValueError, match="is missing"):
                gke.checked(kind, changed)


@pytest.mark.parametrize("name", DRY)
def test_any_value_spelled_differently_is_refused(name: str) -> None:
    """All but the user's own words: the command, and what environment variables hold."""
    manifest, kind = golden(name), name.split(".")[1].split("-")[0]
    for place in keys(manifest):
        inner = copy.deepcopy(manifest)
        held = inner
        for step in place[:-1]:
            held = held[step]
        if isinstance(held[place[-1]], str | bool) and place[-1] not in ("command", "entrypoint", "value"):
            held[place[-1]] = f"{held[place[-1]]}~"
            with pytest.raises(ValueError, match=" is not "):
                gke.checked(kind, inner)


BAD = [
    (["jobset", "--topology", "v5e:5x5"], "v5e comes as"),
    (["jobset", "--topology", "v5e:2x2", "--slices", "2"], "a jobset is one slice"),
    (["jobset", "--topology", "v5e:2x2", "--slices", "0"], "--slices must be"),
    (["rayjob", "--topology", "v5e:2x2"], "needs --ray-version"),
    (["rayjob", "--topology", "v5e:2x2", "--ray-version", "2"], "rayVersion: '2' is not like"),
    (["jobset", "--topology", "v5e:2x2", "--name", "V2"], "lower-case"),
    (["jobset", "--topology", "v5e:2x2", "--image", "a:latest"], "image: 'a:latest' is not like"),
    (["jobset", "--topology", "v5e:2x2", "--namespace", "a b"], "namespace: 'a b' is not like"),
    (["jobset", "--topology", "v5e:2x2", "--max-restarts", "-1"], "maxRestarts: -1 is not"),
    (["jobset", "--topology", "v5e:2x2", "--hours", "11"], "over the budget of 40"),
    (["jobset", "--topology", "v5e:2x2", "--max-chip-hours", "-1"], "--max-chip-hours must be"),
]


@pytest.mark.parametrize(("words", "says"), BAD)
def test_bad_input_is_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert gke.main([words[0], *PLAIN, *words[1:], "--dry-run", *shlex.split(SWEEP)]) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_a_local_store_or_no_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["--", "python", "-m", "launch.sweep", "c.py", "--store", "sweeps/a"]):
        assert gke.main(["jobset", *PLAIN, "--topology", "v5e:2x2", "--dry-run", *command]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_odd_words_stay_words() -> None:
    odd = [
        "python",
        "-m",
        "launch.sweep",
        "a b.py",
        "--x={y: 'z'}\n- \"$HOME\" ${name}",
        "--store",
        "gs://b/c",
    ]
    asked = ["--topology", "v5e:2x2", *PLAIN, "--ray-version", "2.60.0"]
    jobset = gke.manifest_of(gke.parser().parse_args(["jobset", *asked]), odd)
    inner = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert yaml.safe_load(gke.dumped(jobset)) == jobset
    assert inner["containers"][0]["command"] == odd
    rayjob = gke.manifest_of(gke.parser().parse_args(["rayjob", *asked]), odd)
    assert shlex.split(rayjob["spec"]["entrypoint"]) == odd


STATUSES = [
    ("jobset", {}, "waiting"),
    ("jobset", {"replicatedJobsStatus": [{"active": 1, "ready": 0}]}, "waiting"),
    ("jobset", {"replicatedJobsStatus": [{"ready": 1}]}, "running"),
    ("jobset", {"terminalState": "Completed"}, "done"),
    ("jobset", {"terminalState": "Failed"}, "failed"),
    ("rayjob", {}, "waiting"),
    ("rayjob", {"jobDeploymentStatus": "Initializing"}, "waiting"),
    (
        "rayjob",
        {"jobDeploymentStatus": "Initializing", "rayClusterStatus": {"readyWorkerReplicas": 1}},
        "running",
    ),
    ("rayjob", {"jobDeploymentStatus": "ValidationFailed"}, "failed"),
    ("rayjob", {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, "running"),
    ("rayjob", {"jobDeploymentStatus": "Retrying"}, "running"),
    ("rayjob", {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, "done"),
    ("rayjob", {"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, "failed"),
    ("rayjob", {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED"}, "failed"),
]


@pytest.mark.parametrize(("kind", "status", "expected"), STATUSES)
def test_what_a_status_means(kind: str, status: dict[str, Any], expected: str) -> None:
    assert gke.outcome(kind, status) == expected


RUNNING, DONE = {"replicatedJobsStatus": [{"ready": 1}]}, {"terminalState": "Completed"}


class Cluster:
    """A folder in which the fake kubectl keeps its world."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        (folder / "tools").mkdir(parents=True)
        tool = folder / "tools" / "kubectl"
        fake = (HERE / "fake_kubectl").read_text().partition("\n")[2]
        tool.write_text(f"#!{sys.executable} -SE\n{fake}")
        tool.chmod(0o755)
        patch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
        patch.setenv("FAKE_KUBECTL_DIR", str(folder))
        self.script({}, RUNNING, DONE)

    def script(self, *statuses: dict[str, Any], **errors: list[str]) -> None:
        """What get shows, and which calls fail first."""
        text = json.dumps({"statuses": statuses, "errors": errors})
        (self.folder / "script.json").write_text(text)

    def words(self, *more: str) -> list[str]:
        """A command line of launch.gke."""
        own = ["--poll", "0.02", "--ledger", str(self.folder / "ledger.json")]
        return ["jobset", *PLAIN, "--topology", "v5e:4x4", *own, *more, *shlex.split(SWEEP)]

    @property
    def calls(self) -> list[str]:
        """The verbs, in order."""
        path = self.folder / "calls.jsonl"
        return [json.loads(line)[0] for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def exists(self) -> bool:
        """Whether something is left in the cluster."""
        return json.loads((self.folder / "world.json").read_text())["at"] is not None


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path / "cluster", monkeypatch)


def test_applied_followed_deleted(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert gke.main(cluster.words()) == 0
    assert cluster.calls == ["get", "apply", "get", "get", "get", "delete", "get"]
    assert yaml.safe_load((cluster.folder / "applied.yaml").read_text())["kind"] == "JobSet"
    assert not cluster.exists
    ledger = json.loads((cluster.folder / "ledger.json").read_text())
    assert ledger["chip_seconds"] > 0
    assert not ledger["made"]
    assert capsys.readouterr().err.splitlines()[-1].startswith("done; ")


def test_a_failed_one_is_deleted_too(cluster: Cluster) -> None:
    cluster.script(RUNNING, {"terminalState": "Failed"})
    assert gke.main(cluster.words()) == 1
    assert not cluster.exists


def test_the_budget_ends_it(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.script(RUNNING)
    assert gke.main(cluster.words("--max-chip-hours", "0.0005")) == 1
    assert "budget spent" in capsys.readouterr().err
    assert not cluster.exists


def test_a_cluster_that_does_not_answer_for_a_while(cluster: Cluster) -> None:
    bad = "Unable to connect to the server"
    cluster.script(RUNNING, DONE, get=["", bad, bad], delete=[bad])
    assert gke.main(cluster.words()) == 0
    assert not cluster.exists


def test_what_kubectl_refuses_is_one_line(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.script(DONE, apply=['no matches for kind "JobSet"'])
    assert gke.main(cluster.words()) == 2
    assert (
        'kubectl applies nothing: Error from server: no matches for kind "JobSet"' in capsys.readouterr().err
    )


def test_another_ones_object_is_left_alone(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    (cluster.folder / "world.json").write_text('{"at": 0, "errors": {}}')
    assert gke.main(cluster.words()) == 2
    assert "exists" in capsys.readouterr().err
    assert cluster.calls == ["get"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_deletes_it(cluster: Cluster, number: int) -> None:
    cluster.script(RUNNING)
    heard = "import signal, sys; [signal.signal(number, signal.default_int_handler) for number in (2, 15)]"
    program = (
        f"{heard}; from launch.gke import main; sys.exit(main())"  # as in a terminal, however tests are run
    )
    command = [sys.executable, "-c", program, *cluster.words()]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 10
        while cluster.calls.count("get") < 3 and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(number)
        _, error = process.communicate(timeout=20)
    assert error.count("stopped by") == 1
    assert process.returncode == 128 + number
    assert not cluster.exists
