"""Where trials run: `Local` processes on this machine, or `RayExecutor` tasks on a cluster (extra `ray`).

Both start the same command, the numbers of its trials (one, or a pack) at its end, and say with which exit code it
ended. An exit code below
0 or from 128 on is the machine's fault (killed, preempted, node lost), 1 to 126 the trial's own.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from launch.trial import PARENT

GRACE_S = 60.0  # to save a checkpoint after SIGTERM
LOOK_S = 0.02
LOST = -int(signal.SIGKILL)  # what a trial whose node was lost is said to have ended with
# Ray's own defaults notice a silent network cut after minutes, and it would report its use to its makers.
RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_grpc_client_keepalive_time_ms": "10000",
    "RAY_grpc_client_keepalive_timeout_ms": "10000",
    "RAY_grpc_keepalive_time_ms": "10000",
    "RAY_grpc_keepalive_timeout_ms": "10000",
}


Pack = tuple[int, ...]  # the numbers of the trials that one process does


class Executor(Protocol):
    """Runs packs of trials by their numbers, at most `slots` at once."""

    slots: int

    def submit(self, pack: Pack) -> None:
        """Starts a process for the trials of a pack."""

    def wait(self, timeout_s: float) -> tuple[Pack, int] | None:
        """(pack, exit code) of a process that ended and was not told of yet; None when none did in time."""

    def drop(self, pack: Pack) -> None:
        """Forgets a pack that is known to be finished though its end was never told."""

    def stop(self) -> None:
        """Asks all trials to save and end, and returns when they have; after a minute they are killed."""


def infrastructure(code: int) -> bool:
    """Whether an exit code blames the machine and not the trial."""
    return code < 0 or code >= 128


class Local:
    """Trials as processes of this machine, each in a session of its own, dying with this process."""

    def __init__(self, command: Sequence[str], slots: int = 1) -> None:
        """`command` gets the numbers as its last words."""
        self.command, self.slots = tuple(command), slots
        self._running: dict[Pack, subprocess.Popen[bytes]] = {}

    def submit(self, pack: Pack) -> None:
        """Starts a pack. OSError when the machine cannot."""
        self._running[pack] = start(self.command, pack)

    def wait(self, timeout_s: float) -> tuple[Pack, int] | None:
        """See Executor."""
        until = time.monotonic() + timeout_s
        while True:
            for pack, process in list(self._running.items()):
                if (code := process.poll()) is not None:
                    del self._running[pack]
                    return pack, code
            if time.monotonic() >= until:
                return None
            time.sleep(LOOK_S)

    def drop(self, pack: Pack) -> None:
        """Ends and forgets a pack."""
        if (process := self._running.pop(pack, None)) is not None:
            end([process])

    def stop(self) -> None:
        """See Executor."""
        end(list(self._running.values()))
        self._running.clear()


def start(command: Sequence[str], pack: Pack, folder: str | None = None) -> subprocess.Popen[bytes]:
    """A pack of trials as a child, in `folder`, that dies with this process and hears no Ctrl-C of its terminal."""
    environment = os.environ | {PARENT: str(os.getpid())}
    words = [*command, *map(str, pack)]
    return subprocess.Popen(
        words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
    )


def end(processes: Sequence[subprocess.Popen[bytes]], grace_s: float = GRACE_S) -> None:
    """SIGTERM to all, and SIGKILL to those that are still there after `grace_s`."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + grace_s
    try:
        for process in processes:
            process.wait(max(0.0, until - time.monotonic()))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        for process in processes:
            process.kill()
            process.wait()


class RayExecutor:
    """Trials as Ray tasks; a task whose node or worker is lost is run again by Ray, elsewhere."""

    def __init__(
        self,
        command: Sequence[str],
        slots: int = 0,
        address: str = "local",
        needs: Mapping[str, float] | None = None,
    ) -> None:
        """Joins the cluster at `address`, or starts one here ("local"). `needs` is what a trial takes, such as
        {"TPU": 4}; without `slots`, as many run at once as the cluster holds then.

        Raises ModuleNotFoundError without the extra `ray`, ValueError when no cluster answers or none would fit.
        """
        for name, value in RAY_SETTINGS.items():
            os.environ.setdefault(name, value)
        self._ray = _import_ray()
        self.needs = dict(needs or {"CPU": 1.0})
        _connect(self._ray, address)
        total = self._ray.cluster_resources()
        fits = min(int(total.get(name, 0.0) // amount) for name, amount in self.needs.items() if amount > 0)
        if fits < 1:
            self._ray.shutdown()
            raise ValueError(f"a trial needs {self.needs}, the cluster at {address} has {_plain(total)}")
        self.slots = slots or fits
        self._command, self._running = tuple(command), dict[Any, Pack]()
        custom = {name: amount for name, amount in self.needs.items() if name not in ("CPU", "GPU")}
        self._task = self._ray.remote(
            num_cpus=self.needs.get("CPU", 0.0),
            num_gpus=self.needs.get("GPU", 0.0),
            resources=custom,
            max_calls=1,
            max_retries=-1,
        )(on_node)

    def submit(self, pack: Pack) -> None:
        """Starts a pack where the cluster has room."""
        self._running[self._task.remote(self._command, pack, os.getcwd())] = pack

    def wait(self, timeout_s: float) -> tuple[Pack, int] | None:
        """See Executor."""
        if not self._running:
            time.sleep(timeout_s)
            return None
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        if not ready:
            return None
        pack = self._running.pop(ready[0])
        try:
            return pack, int(self._ray.get(ready[0]))
        except self._ray.exceptions.RayError:
            return pack, LOST

    def drop(self, pack: Pack) -> None:
        """Cancels and forgets a pack."""
        for task in [task for task, at in self._running.items() if at == pack]:
            self._ray.cancel(task)
            del self._running[task]

    def stop(self) -> None:
        """See Executor. Leaves the cluster, which goes down if it was ours."""
        for task in self._running:
            self._ray.cancel(task)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=GRACE_S)
        self._running.clear()
        self._ray.shutdown()


def on_node(command: Sequence[str], pack: Pack, folder: str) -> int:
    """The body of a Ray task: one pack as a child of Ray's worker; a cancelled task lets it save and end."""
    where = (
        folder if Path(folder).is_dir() else None
    )  # the driver's repository where nodes see it, else their own
    process = start((sys.executable, *command[1:]), pack, where)
    try:
        while process.poll() is None:  # not wait(): Ray's interrupt is heard between two steps of Python
            time.sleep(LOOK_S)
        return process.returncode
    finally:
        end([process])


def _import_ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError:
        raise ModuleNotFoundError("--on ray needs the optional package ray: pip install '.[ray]'") from None
    return ray


def _connect(ray: Any, address: str) -> None:
    """`ray.init`. A local cluster gets a folder of its own, so that a stale one of another is never joined."""
    quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    if address == "local":
        quiet |= {"_temp_dir": tempfile.mkdtemp(prefix="ray-"), "include_dashboard": False}
    elif address.startswith("127."):
        quiet["_node_ip_address"] = address.rpartition(":")[0]  # Ray would rewrite it
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"no Ray cluster answers at {address}: {' '.join(str(error).split())[:300]}"
        ) from None


def _plain(resources: Mapping[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in sorted(resources.items()) if ":" not in name}
