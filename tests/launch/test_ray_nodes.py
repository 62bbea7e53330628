"""Nodes are killed with everything that they started, and with nothing else."""

import signal
import socket
import subprocess
import sys
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


def test_a_session_is_killed_whole() -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    leader = subprocess.Popen(
        [sys.executable, "-c", LEADER], stdout=subprocess.PIPE, text=False, start_new_session=True
    )
    assert leader.stdout is not None
    with leader.stdout:
        child = int(leader.stdout.readline())
    kill_session(leader)
    assert leader.returncode == -signal.SIGKILL
    assert not alive(child)
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_the_port_is_free() -> None:
    with socket.socket() as listener:
        listener.bind((HEAD, free_port()))
