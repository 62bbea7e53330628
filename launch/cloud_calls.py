"""Cloud commands as processes: run one, or follow one for hours. Ctrl-C in the terminal never reaches them."""

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

GRACE_S = 10.0


@dataclass(frozen=True)
class Finished:
    """What a command left."""

    code: int
    out: str
    error: str

    @property
    def complaint(self) -> str:
        """Its last words, for the one line that a person sees."""
        lines = [line.strip() for line in (self.error or self.out).splitlines() if line.strip()]
        told = next((line for line in lines if "ERROR" in line), lines[-1] if lines else "no output")
        return f"{told} (exit {self.code})"


def call(words: Sequence[str], timeout_s: float = 600.0, text: str | None = None) -> Finished:
    """Run a command to its end; one that takes longer than `timeout_s` is killed and has exit code 124.

    Raises OSError, in one line, if there is no such program.
    """
    with _started(words, subprocess.PIPE) as process:
        try:
            out, error = process.communicate(text, timeout_s)
        except BaseException as problem:
            _end(process)
            if not isinstance(problem, subprocess.TimeoutExpired):
                raise
            return Finished(124, "", f"no answer within {timeout_s:g} s: {' '.join(words[:5])}")
    return Finished(process.returncode, out, error)


class Followed:
    """A running command whose lines are printed as they come; those that start with `mark` are also kept."""

    def __init__(self, words: Sequence[str], mark: str) -> None:
        self.marked: list[str] = []
        self._mark = mark
        self._process = _started(words, subprocess.STDOUT)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with suppress(OSError):  # a closed terminal must not block the command
                    print(line, end="", flush=True)
                if line.startswith(self._mark):
                    self.marked.append(line.removeprefix(self._mark).strip())

    def ended(self, within_s: float) -> bool:
        """Wait up to `within_s` for its end."""
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(GRACE_S)
        return True

    def end(self) -> None:
        """End it and everything that it started."""
        _end(self._process)
        self._reader.join(GRACE_S)


def _started(words: Sequence[str], stderr: int) -> subprocess.Popen[str]:
    """A process in a session of its own: the terminal's Ctrl-C is for this program, which then cleans up."""
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.PIPE if stderr == subprocess.PIPE else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError:
        raise FileNotFoundError(f"{words[0]} is not installed here") from None


def _end(process: subprocess.Popen[str]) -> None:
    """SIGTERM to its whole group, SIGKILL if that is not enough."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(GRACE_S)
            return
        except ProcessLookupError:
            process.wait(GRACE_S)
            return
        except subprocess.TimeoutExpired:
            continue
