"""Where a sweep lives: a folder, or a bucket, of JSON files, each written whole or not at all. The only truth.

    <store>/sweep.json  plan/gen_0000.json  trials/00000/{spec,result,failed}.json  trials.csv  pareto.md

`open_store("sweeps/x")` is a local folder, `open_store("gs://bucket/x")` a bucket (`launch.store_gcs`, extra `gcs`).
"""

import contextlib
import fcntl
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol


class Busy(OSError):
    """Somebody else holds a lease: until `deadline` (seconds since the epoch) unless renewed; None: it lives."""

    def __init__(self, line: str, deadline: float | None = None) -> None:
        super().__init__(line)
        self.deadline = deadline


class Store(Protocol):
    """Names are paths below the store, with "/" between their parts. Any method may raise OSError, in one line."""

    url: str

    def read(self, name: str) -> dict[str, Any] | None:
        """The JSON object called `name`, None where there is none. ValueError where it is damaged."""

    def read_bytes(self, name: str) -> bytes | None:
        """The file called `name`, None where there is none."""

    def write(self, name: str, obj: dict[str, Any]) -> None:
        """Puts a JSON object under `name`: readers see the old one or the new one, and no half of it."""

    def write_bytes(self, name: str, data: bytes) -> None:
        """Puts a file under `name`, as `write`."""

    def names(self, prefix: str) -> list[str]:
        """The sorted names of all files below the folder `prefix`."""

    def append_log(self, name: str, text: str) -> None:
        """Adds lines to a file that people read and nothing depends on."""

    def lease(self, name: str, ttl_s: float) -> contextlib.AbstractContextManager[None]:
        """While entered nobody else can enter `name`; free again at most `ttl_s` after its death. Raises Busy.

        A holder that is provably dead, a process of this machine that is gone, is not waited for.

        Somebody who was cut off for so long that another took over is ended at once, with exit code 128.
        """

    def folder(self, name: str) -> Path | None:
        """The folder `name` on this machine's disk, None where the store is elsewhere."""

    def push(self, local: Path, name: str) -> None:
        """Copies what is new in a local folder to the folder `name`; nothing where that is the same folder.

        A folder below it whose name is a number, a checkpoint's, is there whole for `pull` or not at all.
        """

    def pull(self, name: str, local: Path) -> None:
        """Copies the folder `name` to a local folder; nothing where that is the same folder."""

    def check(self) -> None:
        """OSError in one line where the store cannot be reached and written."""


def open_store(url: str) -> Store:
    """The store at a local path or `gs://bucket/prefix`; nothing is touched before it is used.

    Raises ValueError for another scheme and for gs:// without the extra `gcs`, OSError without credentials for it.
    """
    if url.startswith("gs://"):
        try:
            from launch.store_gcs import BucketStore
        except ModuleNotFoundError:
            raise ValueError(f"--store {url!r} needs google-cloud-storage: pip install '.[gcs]'") from None
        return BucketStore(url)
    if "://" in url:
        raise ValueError(f"--store {url!r}: a store is a folder or gs://bucket/prefix")
    return LocalStore(url)


def encode(obj: dict[str, Any]) -> bytes:
    """A JSON object as the bytes that every store keeps."""
    return (json.dumps(obj, indent=1) + "\n").encode()


def decode(data: bytes, where: str) -> dict[str, Any]:
    """The object in such bytes. ValueError naming `where` for anything else."""
    try:
        found = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{where} is damaged ({error}): delete it and go on") from error
    if not isinstance(found, dict):
        raise ValueError(f"{where} holds no JSON object: delete it and go on")
    return found


def holder() -> str:
    """Who holds a lease, for people."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def life(pid: int | None = None) -> str:
    """The life of a process (None: this one) as no other process ever had: machine, boot, number, start; "" if gone.

    Linux; elsewhere always "".
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = os.stat("/proc/self/ns/pid").st_ino  # numbers of processes count within it
        state, *rest = Path(f"/proc/{pid or os.getpid()}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else f"{boot}/{space}/{pid or os.getpid()}/{rest[18]}"


def still_alive(known: str) -> bool | None:
    """Whether the process with this `life` lives; None where this machine cannot know."""
    machine, mine = known.rpartition("/")[0].rpartition("/")[0], life().rpartition("/")[0].rpartition("/")[0]
    if not machine or machine != mine:
        return None
    return life(int(known.split("/")[2])) == known


class LocalStore:
    """A folder. Leases are flocks: the system drops them with their process, so `ttl_s` is not needed."""

    def __init__(self, url: str) -> None:
        """A store in the folder `url`, made when first written."""
        self.url, self.root = url, Path(url)

    def read(self, name: str) -> dict[str, Any] | None:
        """See `Store`."""
        data = self.read_bytes(name)
        return None if data is None else decode(data, f"{self.url}/{name}")

    def read_bytes(self, name: str) -> bytes | None:
        """See `Store`."""
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, obj: dict[str, Any]) -> None:
        """See `Store`."""
        self.write_bytes(name, encode(obj))

    def write_bytes(self, name: str, data: bytes) -> None:
        """See `Store`."""
        path = self.root / name
        with self._written():
            path.parent.mkdir(parents=True, exist_ok=True)
            number, aside = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
            try:
                with os.fdopen(number, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.chmod(aside, 0o644)
                os.replace(aside, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(aside)
                raise

    def names(self, prefix: str) -> list[str]:
        """See `Store`."""
        found = (path for path in (self.root / prefix).rglob("*") if path.is_file())
        return sorted(path.relative_to(self.root).as_posix() for path in found if path.name[0] != ".")

    def append_log(self, name: str, text: str) -> None:
        """See `Store`."""
        path = self.root / name
        with self._written():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(text)

    @contextlib.contextmanager
    def lease(self, name: str, ttl_s: float) -> Iterator[None]:
        """See `Store`."""
        path = self.root / name
        with self._written():
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                who = file.read().strip() or "another process"
                raise Busy(f"{self.url}: {name} is held by {who}") from None
            with contextlib.suppress(OSError):  # a full disk: the name is for people only, the flock holds
                os.ftruncate(file.fileno(), 0)
                os.write(file.fileno(), holder().encode())
            yield

    def folder(self, name: str) -> Path | None:
        """See `Store`."""
        return self.root / name

    def push(self, local: Path, name: str) -> None:
        """See `Store`."""

    def pull(self, name: str, local: Path) -> None:
        """See `Store`."""

    def check(self) -> None:
        """See `Store`."""
        probe = f".probe-{os.getpid()}-{time.monotonic_ns()}"
        self.write(probe, {"written": True})
        with self._written():
            (self.root / probe).unlink()

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Turns what the system says of a write into one line that names the store."""
        try:
            yield
        except OSError as error:
            raise OSError(f"the store {self.url} cannot be written: {error.strerror or error}") from error
