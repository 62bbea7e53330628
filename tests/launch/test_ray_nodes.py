"""Nodes are killed with everything that they started, and with nothing else."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from launch.ray_nodes import HEAD, free_port, kill_session

LEADER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int) -> bool:
    """Whether a process that was killed is gone within ten seconds: the system takes its time."""
    until = time.monotonic() + 10
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not alive(pid)


def test_a_session_is_killed_whole() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as bystander:
        leader = subprocess.Popen(
            [sys.executable, "-c", LEADER], stdout=subprocess.PIPE, text=False, start_new_session=True
        )
        assert leader.stdout is not None
        with leader.stdout:
            child = int(leader.stdout.readline())
        kill_session(leader)
        left = not ends(child), bystander.poll()
        bystander.kill()
    assert leader.returncode == -signal.SIGKILL
    assert left == (False, None)


def test_the_port_is_free() -> None:
    with socket.socket() as listener:
        listener.bind((HEAD, free_port()))
