"""Does a sweep survive? `python -m launch.chaos --trials 8 --faults 12 [--on ray] [--store gs]` runs one twice.

Once undisturbed in a folder, once under faults drawn by a seed: the driver killed and started again, trials killed or
sent SIGTERM, with Ray a node killed and replaced; with `--store gs` in the bucket of a fake server. Three faults of
four wait until a trial has a checkpoint newer than the one it began from, so that there is something to lose. It passes
(exit 0) when every trial has a result, trials.csv has the same bytes, no process is left, and no trial was done twice.
`--json FILE` keeps what it found. Linux only: processes are found in /proc.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from launch.fake_bucket import fake_bucket
from launch.ray_nodes import RayNodes
from launch.store import open_store
from launch.trial import folder_of, progress_in

CONFIG = Path(__file__).with_name("tiny.py")
LIMIT_S = 3600.0
EVERY_S = (3.0, 9.0)  # between two faults, beside waiting for a checkpoint
BLIND = 0.25  # share of the faults that do not wait for one


class Place(Protocol):
    """Where a sweep runs: the words that send it there, and a node to kill if there are several."""

    kinds: Sequence[str]
    words: Sequence[str]

    def kill_node(self, chance: random.Random) -> None:
        """Kills a node and puts a fresh one in its place."""

    def close(self) -> None:
        """Takes down whatever was put up."""


class Here:
    """This machine alone."""

    kinds: Sequence[str] = ("driver -9", "trial -9", "trial SIGTERM")
    words: Sequence[str] = ("--on", "local", "--slots", "2")

    def kill_node(self, chance: random.Random) -> None:
        """There is none."""

    def close(self) -> None:
        """Nothing to take down."""


def sweep_command(store: str, trials: int, words: Sequence[str]) -> list[str]:
    """The command under test."""
    return [
        sys.executable,
        "-m",
        "launch.sweep",
        str(CONFIG),
        "--store",
        store,
        "--trials",
        str(trials),
        *words,
    ]


def trials_of(store: str) -> list[int]:
    """Process ids of the trials of a store that live on this machine."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it ended while we looked
            continue
        if "launch.trial" in words and store in words:
            found.append(int(folder.name))
    return sorted(found)


def disturb(
    kind: str, driver: subprocess.Popen[bytes], store: str, place: Place, chance: random.Random
) -> bool:
    """One fault; False where there was nothing to hit."""
    if kind == "driver -9":
        driver.kill()
        driver.wait()
        return True
    if kind == "node -9":
        place.kill_node(chance)
        return True
    pids = trials_of(store)
    try:
        if pids:
            os.kill(chance.choice(pids), signal.SIGKILL if kind == "trial -9" else signal.SIGTERM)
    except ProcessLookupError:
        return False
    return bool(pids)


def survive(
    store: str, trials: int, faults: int, place: Place, seed: int, log: Path
) -> tuple[int, Counter[str]]:
    """Runs the sweep under faults until it ends by itself: its last exit code, and the faults by kind."""
    chance, done = random.Random(seed), Counter[str]()
    command, begin = sweep_command(store, trials, place.words), time.monotonic()
    with log.open("ab") as output:

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

        driver = start()
        try:
            while driver.poll() is None:
                if time.monotonic() - begin > LIMIT_S:
                    raise TimeoutError(f"not finished after {LIMIT_S:.0f} s; see {log}")
                wait = time.monotonic() + chance.uniform(*EVERY_S)
                while time.monotonic() < wait and driver.poll() is None:
                    time.sleep(0.05)
                blind = chance.random() < BLIND
                while not blind and driver.poll() is None and not ripe(store, trials):
                    time.sleep(0.5)
                if driver.poll() is not None or done.total() >= faults:
                    continue
                kind = chance.choice(place.kinds)
                if disturb(kind, driver, store, place, chance):
                    done[kind] += 1
                    print(f"{time.monotonic() - begin:6.1f} s  {kind}", flush=True)
                if driver.poll() is not None and kind == "driver -9":
                    driver = start()
        finally:
            if driver.poll() is None:
                driver.terminate()
            driver.wait()
    return driver.returncode, done


def ripe(store: str, trials: int) -> bool:
    """Whether a trial that runs has a checkpoint newer than what it began from."""
    held, live = open_store(store), {str(pid) for pid in trials_of(store)}
    for number in range(trials):
        begun, attempts = held.read(f"{folder_of(number)}/attempt.json"), _attempts(store, number)
        if begun and attempts and attempts[-1][0] == "start" and attempts[-1][1] in live:
            place = f"{folder_of(number)}/run/"
            names = (name.removeprefix(place) for name in held.names(place))
            if progress_in(names) > begun["progress"]:
                return True
    return False


def doubled(store: str, trials: int) -> list[int]:
    """Numbers of the trials that were worked on after they were done, or by two at a time."""
    return [number for number in range(trials) if not _in_turn(_attempts(store, number))]


def resumed(store: str, trials: int) -> tuple[int, int]:
    """(attempts after the first one of each trial, those of them that went on from a checkpoint)."""
    starts = [[w for w in _attempts(store, n) if w[0] == "start"][1:] for n in range(trials)]
    again = list(itertools.chain.from_iterable(starts))
    return len(again), sum(words[3] != "0" for words in again)


def _attempts(store: str, number: int) -> list[list[str]]:
    log = open_store(store).read_bytes(f"{folder_of(number)}/attempts.log") or b""
    return [line.split() for line in log.decode().splitlines()]


def _in_turn(attempts: Sequence[Sequence[str]]) -> bool:
    """Whether each `end` is of the process that started last, and nothing comes after an end with code 0."""
    last, over = "", False
    for what, pid, *rest in attempts:
        if over or (what == "end" and pid != last):
            return False
        last, over = pid, what == "end" and rest == ["code", "0"]
    return over


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 0 when the sweep survived, 1 when not."""
    parser = argparse.ArgumentParser(prog="python -m launch.chaos", description=__doc__)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--faults", type=int, default=12)
    parser.add_argument("--on", choices=("local", "ray"), default="local")
    parser.add_argument("--store", choices=("folder", "gs"), default="folder", help="what is disturbed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, help="where all of it goes (default: a fresh temporary folder)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    asked = parser.parse_args(arguments)
    folder = (asked.folder or Path(tempfile.mkdtemp(prefix="chaos-"))).resolve()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the TPU compiler, where it is installed, would look for chips
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    print(f"undisturbed, then {asked.faults} faults, in {folder}", flush=True)
    with (folder / "drivers.log").open("ab") as output:
        words = sweep_command(str(folder / "calm"), asked.trials, Here().words)
        code = subprocess.call(words, stdout=output, stderr=output)
    print(f"undisturbed: exit {code} after {time.monotonic() - begin:.0f} s", flush=True)
    with contextlib.ExitStack() as stack:
        bucket = stack.enter_context(fake_bucket(folder / "bucket.log")) if asked.store == "gs" else folder
        found = compared(asked, folder, f"{bucket}/stormy")
    for name, value in found.items():
        print(f"{name}: {value}")
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    print("survived" if found["survived"] else f"NOT survived; see {folder}")
    return int(not found["survived"])


def compared(asked: argparse.Namespace, folder: Path, store: str) -> dict[str, Any]:
    """Runs the disturbed sweep in `store` and holds it against the undisturbed one in `folder`; plain JSON values."""
    place: Place = RayNodes(folder / "ray") if asked.on == "ray" else Here()
    begin = time.monotonic()
    with contextlib.closing(place):
        code, faults = survive(store, asked.trials, asked.faults, place, asked.seed, folder / "drivers.log")
        seconds = time.monotonic() - begin
        time.sleep(1.0)
        orphans = trials_of(store)
    held = open_store(store)
    results = sum(held.read(f"{folder_of(n)}/result.json") is not None for n in range(asked.trials))
    calm, stormy = open_store(str(folder / "calm")).read_bytes("trials.csv"), held.read_bytes("trials.csv")
    same = calm is not None and calm == stormy
    restarts, went_on = resumed(store, asked.trials)
    twice = doubled(store, asked.trials)
    passed = (code, results, same) == (0, asked.trials, True) and not orphans and not twice
    where = {"folder": "a folder", "gs": "gs://, by fake-gcs-server"}[asked.store]
    return {
        "command": f"python -m launch.chaos --trials {asked.trials} --faults {asked.faults} --on {asked.on} "
        f"--store {asked.store} --seed {asked.seed}",
        "store": where,
        "exit": code,
        "seconds": round(seconds),
        "faults": dict(sorted(faults.items())),
        "restarts": restarts,
        "restarts_from_a_checkpoint": went_on,
        "results": f"{results} of {asked.trials}",
        "trials_csv_identical": same,
        "orphans": len(orphans),
        "doubled": len(twice),
        "survived": passed and faults.total() == asked.faults,
    }


if __name__ == "__main__":
    sys.exit(main())
