r"""One run over several processes: on this machine, on the workers of a TPU VM, or on the pods of a GKE job.

    python -m launch.distributed --processes 2 --devices 2 configs/v2.py --smoke   # this machine, 2 x 2 CPU devices
    python -m launch.distributed configs/v2.py                                     # on every worker of a slice

The words are those of research.run. On a slice each worker runs the same command and finds the others by itself. The
first process owns the workdir; no other needs to see it. Exit codes: those of research.run; 134 when another process
is gone (run the same command again).
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import jax

from launch.trial import PARENT, die_with_parent, research_run
from research.train.signals import HELD

COORDINATOR, PROCESSES, PROCESS = "LAUNCH_COORDINATOR", "LAUNCH_PROCESSES", "LAUNCH_PROCESS"
HEARTBEAT_S = 15  # without a sign of life for so long, a process counts as gone and the others end
SHUTDOWN_S = 120
GRACE_S = 60.0
PORT = 8476
LOST = 128 + signal.SIGABRT  # what JAX itself ends a process with whose coordinator is gone
TPU_DEVICES = ("/dev/accel0", "/dev/vfio/0")
LOOK_S = 0.05


@dataclass(frozen=True)
class Place:
    """Where a process is: `kind` plain, gke or tpu; for tpu JAX asks the machine's metadata for the rest."""

    kind: str
    coordinator: str = ""
    processes: int = 0
    process: int = 0


def detect(environment: Mapping[str, str], has_tpu: bool) -> Place | None:
    """What the environment says; None for a process alone. ValueError for half an answer."""
    names = [name for name in (COORDINATOR, PROCESSES, PROCESS) if name in environment]
    if names:
        if len(names) < 3:
            raise ValueError(f"set all of {COORDINATOR}, {PROCESSES} and {PROCESS}, or none")
        return _checked("plain", environment[COORDINATOR], environment[PROCESSES], environment[PROCESS])
    if "MEGASCALE_NUM_SLICES" in environment:  # several slices: JAX knows how they count their processes
        return Place("tpu")
    hosts = [host for host in environment.get("TPU_WORKER_HOSTNAMES", "").split(",") if host]
    if len(hosts) > 1:
        number = environment.get("TPU_WORKER_ID", "")
        return _checked("gke", f"{hosts[0]}:{PORT}", str(len(hosts)), number)
    return Place("tpu") if has_tpu and not hosts else None


def _checked(kind: str, coordinator: str, processes: str, process: str) -> Place:
    if not (processes.isdecimal() and process.isdecimal() and int(process) < int(processes)):
        raise ValueError(f"process {process!r} of {processes!r} is none: they count from 0")
    return Place(kind, coordinator, int(processes), int(process))


def join(heartbeat_s: int = HEARTBEAT_S) -> Place | None:
    """Meets the other processes of this run, if it has any; before anything else asks JAX for devices.

    ValueError for half an environment, RuntimeError when the others do not come within five minutes.
    """
    place = detect(os.environ, any(Path(path).exists() for path in TPU_DEVICES))
    if place is None:
        return None
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours: research.train.signals
    told = place.kind != "tpu"
    jax.distributed.initialize(
        coordinator_address=place.coordinator if told else None,
        num_processes=place.processes if told else None,
        process_id=place.process if told else None,
        heartbeat_timeout_seconds=heartbeat_s,
        shutdown_timeout_seconds=SHUTDOWN_S,
    )
    return place


def start(
    command: Sequence[str], processes: int, devices: int, folder: Path
) -> list[subprocess.Popen[bytes]]:
    """`command` as so many processes of this machine that will `join`, each with so many CPU devices.

    They die with this one. The first speaks for all; what the others say goes to files in `folder`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    children = []
    for number in range(processes):
        environment = os.environ | {
            COORDINATOR: address,
            PROCESSES: str(processes),
            PROCESS: str(number),
            PARENT: str(os.getpid()),
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
        }
        said: IO[bytes] | None = (folder / f"{number}.txt").open("wb") if number else None
        children.append(
            subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        )
        if said is not None:
            said.close()
    return children


def wait(children: Sequence[subprocess.Popen[bytes]], grace_s: float = GRACE_S) -> list[int]:
    """The exit codes of all. When one fails the others have `grace_s` to notice it; then they are killed."""
    until = float("inf")
    while any(child.poll() is None for child in children):
        if until == float("inf") and any(child.poll() for child in children):
            until = time.monotonic() + grace_s
        if time.monotonic() > until:
            for child in children:
                child.kill()
        time.sleep(LOOK_S)
    return [child.wait() for child in children]


def verdict(codes: Sequence[int]) -> int:
    """One exit code for all: a fault of the run's own before a signal, a signal before a process that was lost."""
    bad = [code for code in codes if code]
    own = [code for code in bad if 0 < code < 128]
    if own or not bad:
        return own[0] if own else 0
    return bad[0] if all(code in (130, 143) for code in bad) else LOST


def together(command: Sequence[str], processes: int, devices: int) -> int:
    """Runs `command` as so many processes; SIGTERM and Ctrl-C are passed on to all of them. Returns `verdict`."""
    with tempfile.TemporaryDirectory(prefix="distributed-") as folder:
        children = start(command, processes, devices, Path(folder))
        before = {name: signal.signal(name, lambda got, frame: _pass_on(children, got)) for name in HELD}
        try:
            codes = wait(children)
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)
        for number, code in enumerate(codes):
            if code and not codes[0] and number:
                sys.stderr.write((Path(folder) / f"{number}.txt").read_text(errors="replace"))
    return verdict(codes)


def _pass_on(children: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for child in children:
        if child.poll() is None:
            child.send_signal(number)


def joined(work: Callable[[], int], heartbeat_s: int = HEARTBEAT_S) -> int:
    """Joins the others and does `work`; returns its exit code.

    A process that cannot go on ends at once, so that the others notice it instead of waiting for it.
    """
    try:
        place = join(heartbeat_s)
    except (ValueError, RuntimeError) as error:
        print(f"error: {' '.join(str(error).split())[:500]}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else LOST
    if place is None:
        return work()
    code = 1
    try:
        code = work()
        jax.distributed.shutdown()
        return code
    except jax.errors.JaxRuntimeError as error:
        code = 1 if "RESOURCE_EXHAUSTED" in str(error) else LOST
        print(f"error: another process is gone? {str(error).splitlines()[0][:200]}", file=sys.stderr)
        raise
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(
        prog="python -m launch.distributed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_place(out)
    return out


def add_place(out: argparse.ArgumentParser) -> None:
    """The arguments that start processes on this machine."""
    out.add_argument("--processes", type=int, default=0, help="start so many on this machine (default: join)")
    out.add_argument("--devices", type=int, default=1, help="CPU devices of each of them (default 1)")
    out.add_argument("--heartbeat", type=int, default=HEARTBEAT_S, help="seconds without a sign of life")


def check_place(asked: argparse.Namespace) -> None:
    """ValueError for numbers that cannot be."""
    if asked.processes < 0 or asked.devices < 1 or asked.heartbeat < 2:
        raise ValueError("--processes, --devices and --heartbeat (2 or more) must be positive")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    die_with_parent()
    asked, words = parser().parse_known_args(arguments)
    try:
        check_place(asked)
        if not words:
            raise ValueError("no config; say which run, as for research.run")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if asked.processes:
        beat = ["--heartbeat", str(asked.heartbeat)]
        return together(
            [sys.executable, "-m", "launch.distributed", *beat, *words], asked.processes, asked.devices
        )
    return joined(lambda: research_run(words), asked.heartbeat)


if __name__ == "__main__":
    sys.exit(main())
