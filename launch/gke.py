r"""Run a command on TPUs in a GKE cluster: a JobSet (one slice) or a KubeRay RayJob (a Ray cluster of slices).

    python -m launch.gke jobset --name v2 --image IMAGE:TAG --topology v5e:4x4 --max-chip-hours 40 [--dry-run] \
        -- python -m launch.trial gs://bucket/v2 0

Prints the manifest (--dry-run), or applies it with kubectl and follows it to its end, and then deletes it.
Exit codes: 0 done; 1 it failed or the budget is spent; 2 bad input; 129, 130, 143 stopped by a signal and deleted.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from launch.cloud_calls import call
from launch.cloud_end import (
    Over,
    alone,
    checked_command,
    checked_name,
    checked_numbers,
    say,
    signals_wait,
    split_command,
    work_then_delete,
)
from launch.manifest import Manifest, fill, problems
from launch.manifest_shapes import SHAPES
from launch.meter import estimate, read_meter, write_meter
from launch.tpu_types import Slice, parse_slice

TEMPLATES = Path(__file__).parent / "templates"
SPOT = {
    "key": "cloud.google.com/gke-spot",
    "operator": "Equal",
    "value": "true",
    "effect": "NoSchedule",
}
DELETE_TRIES = 30
LONGEST_WAIT_S = 60.0


def checked(kind: str, manifest: Manifest) -> Manifest:
    """The manifest itself. Raises ValueError, in one line, if it differs from the shape of its kind anywhere."""
    if found := list(problems(manifest, SHAPES[kind])):
        raise ValueError(f"{kind} manifest: {'; '.join(found)}")
    return manifest


def manifest_of(asked: argparse.Namespace, words: Sequence[str]) -> Manifest:
    """The checked manifest for a command line. Raises ValueError."""
    slice_, slices = parse_slice(asked.topology), asked.slices
    command = checked_command(words)
    values: dict[str, Any] = {
        "name": checked_name(asked.name),
        "namespace": asked.namespace,
        "image": asked.image,
        "service_account": asked.service_account,
        "max_restarts": restarts_of(asked),
        "deadline_s": max(1, int(asked.max_chip_hours * 3600 / (slice_.chips * slices))),
        "save_s": int(asked.save),
        "hosts": slice_.hosts,
        "chips_per_host": str(slice_.chips_per_host),
        "accelerator": slice_.gke_accelerator,
        "topology": slice_.topology,
        "spot_label": "true" if asked.spot else None,
        "tolerations": [SPOT] if asked.spot else None,
    }
    if asked.kind == "jobset":
        if slices != 1:
            raise ValueError("--slices is for rayjob; a jobset is one slice")
        # On several hosts exit code 1 may only mean that a neighbour is gone.
        values |= {"command": list(command), "own_faults": [1, 2] if slice_.hosts == 1 else [2]}
    else:
        if not asked.ray_version:
            raise ValueError("a rayjob needs --ray-version, the one that its image has")
        values |= {"entrypoint": shlex.join(command), "slices": slices, "ray_version": asked.ray_version}
    template = yaml.safe_load((TEMPLATES / f"{asked.kind}.yaml").read_text())
    return checked(asked.kind, fill(template, values))


def dumped(manifest: Manifest) -> str:
    """The manifest as YAML."""
    return str(yaml.safe_dump(manifest, sort_keys=False, width=110))


def restarts_of(asked: argparse.Namespace) -> int:
    """How often the cluster starts again. A RayJob does so even after a failed trial, so only when it is asked to."""
    default = 20 if asked.kind == "jobset" else 0
    return default if asked.max_restarts is None else int(asked.max_restarts)


def costs(asked: argparse.Namespace, slice_: Slice) -> list[str]:
    """What a run may use, in lines."""
    worst = asked.max_chip_hours * (restarts_of(asked) + 1)
    return [
        *estimate(slice_.chips * asked.slices, asked.max_chip_hours, asked.hours),
        "nor: machines that wait until their pods are ready, or until the node pool is scaled down",
        f"if this program is killed, the cluster alone stops at {worst:g} chip-hours ({restarts_of(asked)} restarts)",
    ]


def outcome(kind: str, status: dict[str, Any]) -> str:
    """`waiting`, `running`, `done` or `failed`, from what the cluster says about a JobSet or RayJob.

    It runs, and counts as billed, from when its pods are ready: before that they may wait for machines for days.
    """
    if kind == "jobset":
        ended = {"Completed": "done", "Failed": "failed"}.get(status.get("terminalState", ""))
        ready = any(job.get("ready", 0) for job in status.get("replicatedJobsStatus", []))
        return ended or ("running" if ready else "waiting")
    deployed = status.get("jobDeploymentStatus", "")
    if deployed in ("Complete", "Failed", "ValidationFailed"):
        return "done" if deployed == "Complete" and status.get("jobStatus") == "SUCCEEDED" else "failed"
    workers = status.get("rayClusterStatus", {}).get("readyWorkerReplicas", 0)
    return "running" if deployed in ("Running", "Retrying", "Suspending") or workers else "waiting"


class Follower:
    """One applied manifest: looked at until it ends, its chip-hours counted, deleted."""

    def __init__(self, asked: argparse.Namespace, manifest: Manifest, chips: int, ledger: Path) -> None:
        self.meter = read_meter(ledger, chips)
        self._asked, self._manifest, self._ledger = asked, manifest, ledger
        self._place = [f"{asked.kind}/{asked.name}", f"--namespace={asked.namespace}"]
        self._said = ""

    def look(self) -> str:
        """The outcome so far, `absent`, or `unknown` when the cluster cannot be asked; counts the time."""
        seen = call(["kubectl", "get", *self._place, "--output=json"], 120)
        state = "absent" if seen.code and "NotFound" in seen.error else "unknown"
        if not seen.code:
            with suppress(ValueError):  # half an answer is none
                state = outcome(self._asked.kind, json.loads(seen.out).get("status") or {})
        billed = self.meter.since is not None if state == "unknown" else state == "running"
        self.meter = self.meter.tick(billed, time.time())
        self._write()
        if state != self._said:
            say(f"{self._place[0]}: {state}" + (f" ({seen.complaint})" if state == "unknown" else ""))
        self._said = state
        return state

    def _write(self) -> None:
        try:
            write_meter(self._ledger, self.meter)
        except OSError as error:  # the count goes on in memory
            say(f"cannot write {self._ledger}: {error}")

    def run(self) -> None:
        """Apply and follow to the end. Raises Over unless all is done."""
        self.meter = replace(self.meter, made=True)
        write_meter(self._ledger, self.meter)
        with signals_wait():
            applied = call(["kubectl", "apply", "--filename=-"], text=dumped(self._manifest))
        if applied.code:
            raise Over(2, f"kubectl applies nothing: {applied.complaint}")
        while (state := self.look()) != "done":
            if state in ("failed", "absent"):
                raise Over(1, f"{self._place[0]} {state}; kubectl and the store say why")
            if self.meter.seconds_left(self._asked.max_chip_hours) <= 0:
                used = f"{self.meter.chip_hours:.2f} of {self._asked.max_chip_hours:g} chip-hours"
                raise Over(
                    1, f"budget spent: {used}; the same command with a larger --max-chip-hours goes on"
                )
            time.sleep(self._asked.poll)

    def delete(self) -> None:
        """Delete it and its pods, which get time to save. Raises Over if that cannot be done."""
        words = ["kubectl", "delete", *self._place, "--ignore-not-found", "--wait", "--cascade=foreground"]
        for number in range(DELETE_TRIES):
            done = call(words, 600)
            if done.code == 0 and self.look() == "absent":
                self.meter = replace(self.meter, made=False)
                self._write()
                return
            say(f"{self._place[0]}: cannot delete it yet: {done.complaint}")
            time.sleep(min(self._asked.poll * 2**number, LONGEST_WAIT_S))
        raise Over(1, f"STILL THERE AND BILLED, DELETE IT BY HAND: {shlex.join(words)}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m launch.gke", description=__doc__, formatter_class=_Raw)
    add = out.add_argument
    add("kind", choices=sorted(SHAPES), help="jobset: one command on one slice; rayjob: a sweep over slices")
    add("--name", required=True)
    add("--image", required=True, help="with a tag or digest, never :latest: it holds this checkout")
    add("--topology", required=True, metavar="v5e:4x4", help="generation and shape, as for launch.precompile")
    add("--slices", type=int, default=1, help="of a rayjob")
    add("--max-chip-hours", type=float, required=True, help="the budget: chips x hours, restarts included")
    add("--hours", type=float, help="what launch.precompile predicts; refused if it is over the budget")
    add("--spot", action="store_true", help="cheaper, and may be taken away at any time")
    add("--namespace", default="default")
    add("--service-account", default="default", help="of Kubernetes; it needs the bucket")
    add("--ray-version", help="of a rayjob: the one in the image")
    add("--max-restarts", type=int, help="by the cluster (default: 20 for a jobset, 0 for a rayjob)")
    add("--save", type=float, default=120.0, metavar="SECONDS", help="for saving, when a pod is ended")
    add("--poll", type=float, default=30.0, metavar="SECONDS", help="between two looks")
    add("--ledger", type=Path, help="file of chip-hours used (default: runs/gke/NAME.json)")
    add("--dry-run", action="store_true", help="print the manifest and the estimate; apply nothing")
    return out


class _Raw(argparse.RawDescriptionHelpFormatter):
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    own, command = split_command(arguments)
    asked = parser().parse_args(own)
    try:
        checked_numbers(
            max_chip_hours=asked.max_chip_hours, poll=asked.poll, save=asked.save, slices=asked.slices
        )
        manifest, slice_ = manifest_of(asked, command), parse_slice(asked.topology)
        lines = costs(asked, slice_)
        if asked.dry_run:
            print(dumped(manifest) + "\n".join(f"# {line}" for line in lines))
            return 0
        ledger = asked.ledger or Path("runs/gke") / f"{asked.name}.json"
        with alone(ledger):
            follower = Follower(asked, manifest, slice_.chips * asked.slices, ledger)
            if not follower.meter.made and follower.look() != "absent":
                raise ValueError(
                    f"{asked.kind} {asked.name} exists or cannot be asked for; nothing was applied"
                )
            for line in lines:
                say(line)
            over = work_then_delete(follower.run, follower.delete)
        say(f"{over}; {follower.meter.chip_hours:.3f} chip-hours so far, kept in {ledger}")
        return over.code
    except (ValueError, OSError) as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:  # before there was anything to delete
        return 130


if __name__ == "__main__":
    sys.exit(main())
