"""A Ray cluster of several nodes on this machine, each with a loopback address of its own, whose nodes can be killed.

Nothing here stops Ray by name: every node is a session of its own processes, and only those are ended.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from launch.executors import RAY_SETTINGS

HEAD = "127.0.0.2"  # Ray takes 127.0.0.1 for a mistake and rewrites it
PATIENCE_S = 90.0


class RayNodes:
    """A head without room and `nodes` nodes with room for one trial each, as a place for `launch.chaos`."""

    kinds: Sequence[str] = ("driver -9", "trial -9", "trial SIGTERM", "node -9")

    def __init__(self, folder: Path, nodes: int = 2) -> None:
        """Starts it with its files in `folder`; TimeoutError when a node does not come up."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._last = folder, 2
        self._address = f"{HEAD}:{free_port()}"
        self.words: Sequence[str] = ("--on", "ray", "--address", self._address, "--slots", str(nodes))
        port = self._address.partition(":")[2]
        head = ("--head", f"--node-ip-address={HEAD}", f"--port={port}", "--num-cpus=0")
        files = ("--include-dashboard=false", f"--temp-dir={folder}")
        self._head = self._start(*head, *files)
        self._nodes = [self._add() for _ in range(nodes)]

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        """One `ray start` in a session of its own, when it says that it runs."""
        log = self._folder / f"node-{time.monotonic_ns()}.txt"
        command = [
            str(Path(sys.executable).with_name("ray")),
            "start",
            "--block",
            "--disable-usage-stats",
            *words,
        ]
        with log.open("wb") as output:
            node = subprocess.Popen(
                command,
                env=os.environ | RAY_SETTINGS,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        begin = time.monotonic()
        while "Ray runtime started" not in log.read_text():
            if node.poll() is not None or time.monotonic() - begin > PATIENCE_S:
                kill_session(node)
                raise TimeoutError(f"a Ray node did not start; see {log}")
            time.sleep(0.1)
        return node

    def _add(self) -> subprocess.Popen[bytes]:
        self._last += 1
        ip = f"127.0.0.{self._last}"
        return self._start(f"--address={self._address}", f"--node-ip-address={ip}", "--num-cpus=1")

    def kill_node(self, chance: random.Random) -> None:
        """Kills a node with all its processes, and starts a fresh one."""
        kill_session(self._nodes.pop(chance.randrange(len(self._nodes))))
        self._nodes.append(self._add())

    def close(self) -> None:
        """Ends the cluster."""
        for node in (*self._nodes, self._head):
            kill_session(node)


def free_port() -> int:
    """A port of the head's address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HEAD, 0))
        return int(probe.getsockname()[1])


def kill_session(leader: subprocess.Popen[bytes]) -> None:
    """SIGKILL to every process of the session that `leader` leads."""
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            if os.getsid(pid) == leader.pid:
                os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # it ended meanwhile, or is nobody of ours
            continue
    leader.wait()
