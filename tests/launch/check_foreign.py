"""What we write, read by programs that we did not write. Not part of `make test`; it needs more than it installs:

    pip install -c constraints.txt -e '.[cloud-check]'          kubernetes-validate, kubeflow-trainer-api, shellcheck
    python -m pytest -q tests/launch/check_foreign.py           all; -k kubernetes, jobset, shellcheck, gcloud, kubectl

gcloud and kubectl are Google's own; no account is needed and no cloud is reached: the commands get past the parser
and stop where an account or a cluster is missing. Each check is also shown refusing a typo.
"""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.launch.test_gke import DRY, GOLDENS, ROOT, golden, keys, renamed

KUBERNETES = "1.34"
JOBSETS = [name for name in DRY if ".jobset" in name]
# Keys of free maps (labels, resources, ...): a foreign parser takes any; launch/manifest_shapes.py does not.
FREE = {"labels", "annotations", "nodeSelector", "requests", "limits", "rayStartParams"}


def objects(name: str) -> list[dict[str, Any]]:
    """The Job and the Pods inside a golden manifest, as objects of their own."""
    manifest, metadata = golden(name), {"name": "x"}
    if name in JOBSETS:
        job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
        return [{"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job}]
    cluster = manifest["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    pods = [group["template"]["spec"] for group in groups]
    return [{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec} for spec in pods]


def strict_places(tree: Any) -> list[tuple[Any, ...]]:
    """The keys that are fields of an API and not of a free map."""
    return [place for place in keys(tree) if place[0] == "spec" and not FREE & set(place[:-1])]


@pytest.mark.parametrize("name", DRY)
def test_kubernetes_validate_takes_the_pods_and_refuses_a_typo(name: str) -> None:
    import kubernetes_validate

    for held in objects(name):
        kubernetes_validate.validate(held, KUBERNETES, strict=True)
        for place in strict_places(held):
            with pytest.raises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(renamed(held, place, place[-1] + "x"), KUBERNETES, strict=True)


@pytest.mark.parametrize("name", JOBSETS)
def test_jobset_survives_the_models_of_kubeflow_and_a_typo_does_not(name: str) -> None:
    from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

    def there_and_back(manifest: dict[str, Any]) -> Any:
        try:
            return JobsetV1alpha2JobSet.from_dict(manifest).to_dict()
        except ValueError as refused:
            return refused

    manifest = golden(name)
    assert there_and_back(manifest) == manifest
    for place in strict_places(manifest):
        changed = renamed(manifest, place, place[-1] + "x")
        assert there_and_back(changed) != changed


def test_shellcheck_finds_nothing() -> None:
    subprocess.run(
        ["shellcheck", ROOT / "launch" / "node_up.sh", ROOT / "tests/launch/fake_python"], check=True
    )


def without_account(command: list[str], folder: Path) -> tuple[int, str]:
    """Exit code and errors of a cloud command that knows no account and no cluster."""
    nowhere = {
        "CLOUDSDK_CONFIG": str(folder),
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
        "KUBECONFIG": str(folder / "none"),
    }
    done = subprocess.run(
        command, env=os.environ | nowhere, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", [path.name for path in sorted(GOLDENS.glob("tpu_vm.*.txt"))])
def test_gcloud_parses_each_command_and_refuses_a_typo(name: str, tmp_path: Path) -> None:
    lines = (GOLDENS / name).read_text().splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("gcloud ")]
    assert len(commands) == 6
    for command in commands:
        code, error = without_account(command, tmp_path)
        assert (code, "active account" in error) == (1, True), error
        flag = next(word for word in command if word.startswith("--z"))
        wrong = [word.replace("--zone=", "--zonee=") if word == flag else word for word in command]
        assert without_account(wrong, tmp_path)[0] == 2


def test_kubectl_knows_every_flag(tmp_path: Path) -> None:
    place = ["jobset/v2", "--namespace=default"]
    for words in (
        ["get", *place, "--output=json"],
        ["delete", *place, "--ignore-not-found", "--wait", "--cascade=foreground"],
        ["apply", "--filename=-"],
    ):
        assert "unknown flag" not in without_account(["kubectl", *words], tmp_path)[1]
        assert "unknown flag" in without_account(["kubectl", *words, "--namespacee=x"], tmp_path)[1]
