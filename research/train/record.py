"""What a run leaves behind: card.json (who, what, with what), metrics.jsonl and result.json, all written atomically."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from research.spec import Experiment, differences, to_json

PACKAGES = (
    "jax",
    "flax",
    "optax",
    "orbax-checkpoint",
    "chex",
    "tensorflow-datasets",
    "ethos-u-vela",
    "ai-edge-litert",
)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON through a temporary file: a reader sees the old file or the new one. Numbers must be finite."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file through a temporary file and a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(data)
    os.replace(fresh, path)


def claim(workdir: Path, exp: Experiment, overrides: tuple[str, ...] = ()) -> None:
    """Makes `workdir` this experiment's: writes its card, or checks the one that is there.

    Raises ValueError when the folder cannot be written or belongs to another config, naming what differs.
    """
    path = workdir / "card.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"workdir {str(workdir)!r} cannot be written: {error.strerror}") from None
    config = to_json(exp)
    if path.exists():
        other = differences(json.loads(path.read_text())["config"], config)
        if other:
            shown = "; ".join(other[:3]) + (f"; and {len(other) - 3} more" if len(other) > 3 else "")
            raise ValueError(
                f"workdir {str(workdir)!r} belongs to another config ({shown}); choose another --workdir"
            )
        return
    write_json(path, card(config, overrides))


def card(config: Any, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Config, overrides, git revision and dirty flag, versions, device, command, time."""
    return {
        "config": config,
        "overrides": list(overrides),
        "git": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain")),
        "versions": versions(),
        "device": device(),
        "command": command(),
        "created": now(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on; absent ones are left out."""
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def device() -> str:
    """Platform and number of devices, for example "cpu x1"."""
    return f"{jax.devices()[0].platform} x{jax.device_count()}"


def command() -> str:
    """The command line as a user would type it."""
    name = Path(sys.argv[0]).name
    return " ".join(["python -m research.run" if name == "run.py" else name, *sys.argv[1:]])


def now() -> str:
    """Current time, UTC, ISO 8601 to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _git(*words: str) -> str:
    here = Path(__file__).parent
    done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


@contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Holds the workdir for this process. ValueError when another holds it, or when it cannot be written."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        handle = (workdir / ".lock").open("w")
    except OSError as error:
        raise ValueError(f"workdir {str(workdir)!r} cannot be written: {error.strerror}") from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"workdir {str(workdir)!r} is in use by another process") from None
        yield


class Metrics:
    """metrics.jsonl of one stage: rows of a step and its numbers, those after a resumed step cut off."""

    def __init__(self, path: Path, from_step: int) -> None:
        """Opens `path` for rows after `from_step`; later rows that are there, and a torn last line, are dropped."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows = [row for row in _rows(path) if row["step"] <= from_step]
        write_bytes(path, "".join(json.dumps(row) + "\n" for row in self.rows).encode())
        self._file = path.open("a")

    def add(self, row: Mapping[str, float]) -> None:
        """Appends one row of finite numbers."""
        assert all(math.isfinite(v) for v in row.values())
        self.rows.append(dict(row))
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _rows(path: Path) -> Iterator[dict[str, float]]:
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return
