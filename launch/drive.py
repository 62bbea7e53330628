"""The driver's loop: start trials, judge how they ended, retry what the machine broke, give up on what is broken.

All it knows is in the store, so another driver goes on where this one was killed: result.json says done, failed.json
says given up, failures.json counts what went wrong so far.
"""

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from launch.executors import Executor, Pack, infrastructure
from launch.store import Store
from launch.trial import FULL, LOG, folder_of

STALLED = 10  # ends by the machine's fault in a row, with no newer checkpoint between them, that are too many
TICK_S = 0.5
LOOK_S = 5.0  # between looks for results whose news were lost, and for a cancel
TAIL = 2000

Heard = Callable[[int, str], None]  # the number of a trial and what became of it


class Cancelled(KeyboardInterrupt):
    """Somebody ran `launch.sweep cancel`."""


def state_of(store: Store, number: int) -> str:
    """What the store says of a trial: "done", "failed" or "waiting"."""
    if store.read(f"{folder_of(number)}/result.json"):
        return "done"
    return "failed" if store.read(f"{folder_of(number)}/failed.json") else "waiting"


def judge(store: Store, number: int, code: int, max_failures: int) -> str:
    """What an ended trial is: "done", "failed (CODE)", written down as failed.json, or "retry (CODE)".

    OSError when the store no longer works, which is no trial's fault.
    """
    place = folder_of(number)
    if store.read(f"{place}/result.json"):
        return "done"
    seen: dict[str, Any] = {"own": 0, "stalled": 0, "progress": None} | (
        store.read(f"{place}/failures.json") or {}
    )
    if infrastructure(code):
        if code == FULL and store.folder(place) is not None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        store.check()
        progress = (store.read(f"{place}/attempt.json") or {}).get("progress")
        seen["stalled"] = seen["stalled"] + 1 if progress == seen["progress"] else 1
        seen["progress"] = progress
    else:
        seen["own"] += 1
    store.write(f"{place}/failures.json", seen)
    if seen["own"] < max_failures and seen["stalled"] < STALLED:
        return f"retry ({code})"
    store.write(f"{place}/failed.json", {"code": code, **seen, "log": log_tail(store, number)})
    return f"failed ({code})"


def log_tail(store: Store, number: int) -> str:
    """The end of what a trial printed, as far as it came to the store; "" where there is nothing."""
    return (store.read_bytes(f"{folder_of(number)}/run/{LOG}") or b"")[-TAIL:].decode(errors="replace")


def forgive(store: Store, number: int) -> None:
    """Lets a failed trial be tried again, with nothing counted against it."""
    for name in ("failed.json", "failures.json"):
        store.write(f"{folder_of(number)}/{name}", {})


def alone(numbers: Sequence[int]) -> list[Pack]:
    """Every trial in a process of its own."""
    return [(number,) for number in numbers]


def run_trials(
    store: Store,
    numbers: Sequence[int],
    executor: Executor,
    max_failures: int,
    heard: Heard,
    packed: Callable[[Sequence[int]], list[Pack]] = alone,
) -> None:
    """Runs those trials that are neither done nor failed until they are; `heard` gets every change.

    `packed` says which share a process. A pack that fails by itself is taken apart, so that only the trial whose fault
    it is pays for it.

    Raises Cancelled, and OSError when the store fails; trials that run are then left to the executor's `stop`.
    """
    todo = deque(packed([number for number in numbers if state_of(store, number) == "waiting"]))
    running: list[Pack] = []
    finished_before: set[Pack] = set()
    looked = 0.0
    while todo or running:
        while todo and len(running) < executor.slots:
            running.append(todo.popleft())
            executor.submit(running[-1])
            for number in running[-1]:
                heard(number, "started")
        ended = executor.wait(TICK_S)
        if ended is not None:
            pack, code = ended
            running.remove(pack)
            again = _judged(store, pack, code, max_failures, heard)
            todo.extendleft(alone(again)[::-1] if not infrastructure(code) else [again][: len(again)])
        if time.monotonic() - looked > LOOK_S:
            looked = time.monotonic()
            if store.read("cancel.json"):
                raise Cancelled
            finished = {pack for pack in running if all(state_of(store, n) == "done" for n in pack)}
            for pack in finished & finished_before:  # its end should have been told by now
                running.remove(pack)
                executor.drop(pack)
                for number in pack:
                    heard(number, "done")
            finished_before = finished


def _judged(store: Store, pack: Pack, code: int, max_failures: int, heard: Heard) -> Pack:
    """Judges each trial of a pack that ended; those that are to run again."""
    again = []
    for number in pack:
        shared = len(pack) > 1 and not infrastructure(code) and state_of(store, number) != "done"
        verdict = f"retry ({code})" if shared else judge(store, number, code, max_failures)
        if verdict.startswith("retry"):
            again.append(number)
        heard(number, verdict)
    return tuple(again)
