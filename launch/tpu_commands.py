"""The words of every gcloud and git command that the life of a TPU VM needs; nothing here runs anything."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from launch.tpu_types import Slice

CODE = "npu-squeeze"  # the folder on each worker, and its archive
NODE_UP = f"bash {CODE}/launch/node_up.sh"
# A worker that vanished is noticed within a minute instead of never.
KEEP_ALIVE = ["--ssh-flag=-oServerAliveInterval=15", "--ssh-flag=-oServerAliveCountMax=4"]

Command = list[str]


@dataclass(frozen=True)
class Target:
    """One queued resource and its one TPU VM, which share a name."""

    name: str
    project: str
    zone: str

    @property
    def place(self) -> Command:
        """The flags that say where."""
        return [f"--project={self.project}", f"--zone={self.zone}"]


def changed_files() -> Command:
    """Lists changes that no commit holds: `archive` would leave them behind."""
    return ["git", "status", "--porcelain", "--untracked-files=no"]


def archive(path: str) -> Command:
    """Packs the commit that is checked out."""
    return ["git", "archive", "--format=tar.gz", f"--output={path}", "HEAD"]


def create(target: Target, slice_: Slice, runtime: str, spot: bool, more: Sequence[str] = ()) -> Command:
    """Asks for the slice; it waits in a queue until there is one."""
    words = ["gcloud", "compute", "tpus", "queued-resources", "create", target.name]
    words += [f"--node-id={target.name}", f"--accelerator-type={slice_.accelerator_type}"]
    words += [f"--runtime-version={runtime}", *target.place, *more, "--quiet"]
    return words + ["--spot"] * spot


def describe(target: Target) -> Command:
    """Prints the request's state as JSON; fails with NOT_FOUND when there is none."""
    words = ["gcloud", "compute", "tpus", "queued-resources", "describe", target.name]
    return [*words, *target.place, "--format=json(state)"]


def delete(target: Target) -> Command:
    """Deletes the request and its VM, in whatever state they are."""
    words = ["gcloud", "compute", "tpus", "queued-resources", "delete", target.name]
    return [*words, *target.place, "--force", "--quiet"]


def copy(target: Target, path: str, more: Sequence[str] = ()) -> Command:
    """Copies the archive to every worker."""
    words = ["gcloud", "compute", "tpus", "tpu-vm", "scp", path, f"{target.name}:{CODE}.tar.gz"]
    return [*words, *target.place, "--worker=all", *more, "--quiet"]


def ssh(target: Target, worker: str, command: str, more: Sequence[str] = ()) -> Command:
    """Runs a shell command on one worker, or on `all` of them."""
    words = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", target.name, *target.place]
    return [*words, f"--worker={worker}", *KEEP_ALIVE, *more, "--quiet", f"--command={command}"]


def node_up(extras: str) -> str:
    """The shell command that unpacks the code and installs and checks it on a worker."""
    unpack = f"mkdir -p {CODE} && tar -xzf {CODE}.tar.gz -C {CODE}"
    return f"{unpack} && {NODE_UP} up {shlex.quote(extras)}"


def node_run(seconds: int, command: Sequence[str]) -> str:
    """The shell command that runs the user's command; after `seconds` the worker itself ends it with SIGTERM."""
    return f"{NODE_UP} run {seconds} {shlex.join(command)}"


def node_stop() -> str:
    """The shell command that ends what `node_run` started, giving it time to save."""
    return f"{NODE_UP} stop"
