"""The life of one queued resource: ask, wait, install, run, ask again when it is taken away, delete.

A state machine around gcloud; launch/tpu_vm.py is its command line.
"""

import json
import re
import shlex
import time
from dataclasses import dataclass, replace
from pathlib import Path

from launch import tpu_commands as words
from launch.cloud_calls import Followed, call
from launch.cloud_end import Over, say, signals_wait
from launch.meter import read_meter, write_meter
from launch.tpu_types import Slice

BILLED = ("PROVISIONING", "ACTIVE", "SUSPENDING", "DELETING")
LOST = ("SUSPENDING", "SUSPENDED", "FAILED", "DELETING", "ABSENT")
MARK = "node_up: "
TIME_IS_OVER = 124  # exit code of timeout(1) on the worker
LAST_WORDS_S = 5.0  # for the output of a command that was stopped
DELETE_TRIES = 30  # about half an hour
LONGEST_WAIT_S = 60.0  # between two of them
MOST_REFUSALS = 3  # requests that FAILED in a row: the next one will not do better


@dataclass(frozen=True)
class Job:
    """Everything that one call of launch.tpu_vm is asked to do."""

    target: words.Target
    slice: Slice
    runtime: str
    command: tuple[str, ...]
    code: str
    worker: str = "0"
    extras: str = ""
    spot: bool = False
    max_chip_hours: float = 1.0
    max_losses: int = 20
    poll_s: float = 30.0
    save_s: float = 120.0
    create_flags: tuple[str, ...] = ()
    connect_flags: tuple[str, ...] = ()

    @property
    def runners(self) -> int:
        """On how many workers the command runs."""
        return self.slice.hosts if self.worker == "all" else 1

    def run_seconds(self, seconds_left: float) -> int:
        """How long the command may run, so that it can save before the budget ends."""
        return max(1, int(seconds_left - self.save_s))


class Lost(Exception):
    """The slice, or the way to it, is gone; another one may do."""


def look(target: words.Target) -> tuple[str, str]:
    """Its state (or ABSENT, or UNKNOWN when gcloud cannot say just now) and what gcloud says about it."""
    seen = call(words.describe(target), 120)
    if seen.code:
        return ("ABSENT", "") if "NOT_FOUND" in seen.error else ("UNKNOWN", seen.complaint)
    try:
        state = json.loads(seen.out)["state"]
        return str(state["state"]), str(state.get("failedData", {}).get("error", {}).get("message", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "UNKNOWN", f"gcloud answers {seen.out[:80]!r}"


class TpuVm:
    """One queued resource and its meter, which is written to the ledger at every look at the state."""

    def __init__(self, job: Job, ledger: Path) -> None:
        self.job = job
        self.meter = read_meter(ledger, job.slice.chips)
        self._ledger = ledger
        self._seen = ("", "")
        self._refusals = 0

    def adopt(self) -> None:
        """From here on it is ours: its time counts, and it is ours to delete. Raises OSError if that cannot be kept."""
        self.meter = replace(self.meter, made=True)
        write_meter(self._ledger, self.meter)

    def state(self) -> str:
        """Look, count the time since the last look, and say what is new."""
        seen = look(self.job.target)
        # Out of sight is not free: while the state is unknown, it is billed if it was before.
        billed = self.meter.since is not None if seen[0] == "UNKNOWN" else seen[0] in BILLED
        self.meter = self.meter.tick(billed and self.meter.made, time.time())
        self._write()
        if seen != self._seen:
            say(": ".join(part for part in (self.job.target.name, *seen) if part))
        self._seen = seen
        return seen[0]

    def _write(self) -> None:
        try:
            write_meter(self._ledger, self.meter)
        except OSError as error:  # the count goes on in memory; a full disk must not keep a slice alive
            say(f"cannot write {self._ledger}: {error}")

    def run(self) -> None:
        """The command to its end, on as many slices as it takes. Raises Over unless it exits 0."""
        stayed = 0
        for losses in range(self.job.max_losses + 1):
            try:
                self._acquire()
                self._set_up()
                self._work()
                return
            except Lost as lost:
                say(f"{self.job.target.name}: lost: {lost} ({losses + 1} of at most {self.job.max_losses})")
                stayed = 0 if self.state() in LOST else stayed + 1
                if stayed != 1:  # gone; or there, but no use for the second time
                    self.delete()
                    stayed = 0
                if losses < self.job.max_losses:
                    time.sleep(min(self.job.poll_s * 2**losses, 20 * self.job.poll_s))
        raise Over(1, f"lost {self.job.max_losses + 1} times; the same command goes on")

    def _acquire(self) -> None:
        """Have an ACTIVE slice."""
        job = self.job
        self._check_budget()
        if self.state() == "ABSENT":
            self.adopt()
            with signals_wait():
                made = call(words.create(job.target, job.slice, job.runtime, job.spot, job.create_flags))
            if made.code and self.state() == "ABSENT":
                raise Over(2, f"gcloud creates nothing: {made.complaint}")
        while (state := self.state()) != "ACTIVE":
            self._check_budget()
            if state in LOST:
                self._refusals += state == "FAILED"
                if self._refusals == MOST_REFUSALS:
                    raise Over(1, f"{MOST_REFUSALS} requests in a row FAILED: {self._seen[1]}")
                raise Lost(state)
            time.sleep(job.poll_s)
        self._refusals = 0

    def _set_up(self) -> None:
        """The code on all workers, with the same checked versions on each."""
        job = self.job
        copied = call(words.copy(job.target, job.code, job.connect_flags))
        if copied.code:
            raise Lost(f"cannot copy the code: {copied.complaint}")
        marks = self._follow("all", words.node_up(job.extras), "set-up")
        refused = [mark for mark in marks if mark.startswith("refused")]
        if refused:
            raise Over(2, refused[0])
        hosts = {mark for mark in marks if mark.startswith("ok ")}
        if len(hosts) != job.slice.hosts:
            raise Lost(f"{len(hosts)} of {job.slice.hosts} workers are set up")
        if len({re.sub(r"host=\S* ", "", mark) for mark in hosts}) != 1:
            raise Over(2, f"the workers differ: {' | '.join(sorted(hosts))}")

    def _work(self) -> None:
        """The command, once. Raises Lost if infrastructure ended it and Over if it failed by itself."""
        job = self.job
        seconds = job.run_seconds(self.meter.seconds_left(job.max_chip_hours))
        marks = self._follow(job.worker, words.node_run(seconds, job.command), "command")
        ends = [re.fullmatch(r"exit=(\d+) host=(\S*)", mark) for mark in marks]
        codes = {end[2]: int(end[1]) for end in ends if end}  # a host's last word counts
        if TIME_IS_OVER in codes.values():
            raise Over(1, self._budget_line())
        if len(codes) < job.runners or max(codes.values()) >= 128:
            raise Lost(f"the command on {job.runners} workers ended with {sorted(codes.values())}")
        if any(codes.values()):
            code = max(codes.values())
            raise Over(2 if code == 2 else 1, f"the command failed with exit code {code}")

    def _follow(self, worker: str, command: str, what: str) -> list[str]:
        """Follow a command on the workers while looking at the slice; returns the lines node_up.sh marked."""
        job = self.job
        running = Followed(words.ssh(job.target, worker, command, job.connect_flags), MARK)
        try:
            while not running.ended(job.poll_s):
                if (state := self.state()) in LOST:
                    raise Lost(f"{state} during the {what}")
                self._check_budget()
            return running.marked
        except BaseException as problem:
            if not isinstance(problem, Lost):
                say(f"stopping the {what}, so that it can save")
                call(words.ssh(job.target, "all", words.node_stop(), job.connect_flags), job.save_s)
                running.ended(LAST_WORDS_S)
            raise
        finally:
            running.end()

    def _check_budget(self) -> None:
        if self.meter.seconds_left(self.job.max_chip_hours) <= 0:
            raise Over(1, self._budget_line())

    def _budget_line(self) -> str:
        used = f"budget spent: {self.meter.chip_hours:.2f} of {self.job.max_chip_hours:g} chip-hours"
        return f"{used}; the same command with a larger --max-chip-hours goes on"

    def delete(self) -> None:
        """Delete it and see that it is gone. Raises Over if it is still there after all tries."""
        for wait in (min(self.job.poll_s * 2**n, LONGEST_WAIT_S) for n in range(DELETE_TRIES)):
            state = self.state()
            if state not in ("ABSENT", "DELETING"):
                done = call(words.delete(self.job.target))
                if done.code:
                    say(f"{self.job.target.name}: cannot delete it yet: {done.complaint}")
                state = self.state()
            if state == "ABSENT":
                self.meter = replace(self.meter, made=False)
                self._write()
                return
            time.sleep(wait)
        raise Over(
            1, f"STILL THERE AND BILLED, DELETE IT BY HAND: {shlex.join(words.delete(self.job.target))}"
        )
