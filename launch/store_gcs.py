"""A store in a Google Cloud Storage bucket: one object a file, so that every write is whole.

Needs google-cloud-storage (extra `gcs`). A lease is an object with a deadline that its holder moves on; taking one over
is a write that only succeeds on the generation that was read. `STORAGE_EMULATOR_HOST` points it at a fake server.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage

from launch.store import Busy, decode, encode, holder, life, still_alive

_TIMEOUT_S = 60
_MARK = ".whole"  # in a numbered folder all of whose files are there
LOST = 128  # exit code: the machine's fault, so the work is done again
_UNKNOWN = "another process, just now"
_FAULTS = (exceptions.GoogleAPIError, GoogleAuthError, OSError)


class _Lease:
    """An object {holder, until, life}. Who is told of a conflict looks who holds it: the server's answer may be lost.

    `deadline` of another holder, as last seen: None for a process of this machine that lives.
    """

    def __init__(self, blob: Any, me: str, ttl_s: float) -> None:
        self._blob, self._me, self._ttl_s, self._generation = blob, me, ttl_s, 0
        self.deadline: float | None = 0.0

    def take(self) -> str:
        """ "" when it is ours now, else who holds it."""
        who, until, self._generation = self._look()
        return who if until > time.time() else self.renew()

    def renew(self) -> str:
        """Moves the deadline on: "" when that worked, else who holds it."""
        told = json.dumps({"holder": self._me, "until": time.time() + self._ttl_s, "life": life()})
        try:
            self._blob.upload_from_string(told, if_generation_match=self._generation, timeout=_TIMEOUT_S)
        except exceptions.PreconditionFailed:
            who, _, self._generation = self._look()
            return "" if who == self._me else who
        self._generation = self._blob.generation
        return ""

    def give_back(self) -> None:
        """Deletes it if it is still ours."""
        self._blob.delete(if_generation_match=self._generation, timeout=_TIMEOUT_S)

    def _look(self) -> tuple[str, float, int]:
        """Holder, deadline and generation as the server has them; 0 is the generation of what is not there.

        The deadline of a process of this machine that is gone is long over.
        """
        found = self._blob.bucket.get_blob(self._blob.name, timeout=_TIMEOUT_S)
        if found is None:
            return _UNKNOWN, 0.0, 0
        seen = int(found.generation)
        try:
            told = decode(found.download_as_bytes(timeout=_TIMEOUT_S), "a lease")
        except exceptions.NotFound:  # it went or changed hands meanwhile
            return _UNKNOWN, 0.0, 0
        except ValueError:  # damaged: nobody's
            return _UNKNOWN, 0.0, seen
        until, lives = float(told.get("until", 0.0)), still_alive(str(told.get("life")))
        self.deadline = None if lives else until
        return str(told.get("holder")), 0.0 if lives is False else until, seen


class BucketStore:
    """`gs://bucket/prefix`."""

    def __init__(self, url: str) -> None:
        """A store at `url`; the bucket must exist. ValueError for a url without one, OSError without credentials."""
        bucket, _, prefix = url.removeprefix("gs://").strip("/").partition("/")
        if not bucket:
            raise ValueError(f"--store {url!r} names no bucket: gs://bucket/prefix")
        self.url, self._prefix = url.rstrip("/"), f"{prefix}/" if prefix else ""
        with self._reached("reached"):
            if os.environ.get("STORAGE_EMULATOR_HOST"):
                client = storage.Client(project="fake", credentials=AnonymousCredentials())
            else:
                client = storage.Client()
            self._bucket = client.bucket(bucket)

    def _blob(self, name: str) -> Any:
        return self._bucket.blob(self._prefix + name)

    @contextlib.contextmanager
    def _reached(self, what: str) -> Iterator[None]:
        """Turns what the client raises into one OSError of one line."""
        try:
            yield
        except Busy:
            raise
        except _FAULTS as error:
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise OSError(f"the store {self.url} cannot be {what}: {line}") from error

    def read(self, name: str) -> dict[str, Any] | None:
        """See `Store`."""
        data = self.read_bytes(name)
        return None if data is None else decode(data, f"{self.url}/{name}")

    def read_bytes(self, name: str) -> bytes | None:
        """See `Store`."""
        with self._reached("read"):
            try:
                return bytes(self._blob(name).download_as_bytes(timeout=_TIMEOUT_S))
            except exceptions.NotFound:
                return None

    def write(self, name: str, obj: dict[str, Any]) -> None:
        """See `Store`."""
        self.write_bytes(name, encode(obj))

    def write_bytes(self, name: str, data: bytes) -> None:
        """See `Store`."""
        with self._reached("written"):
            self._blob(name).upload_from_string(data, timeout=_TIMEOUT_S)

    def names(self, prefix: str) -> list[str]:
        """See `Store`."""
        folder = f"{self._prefix}{prefix}".rstrip("/")
        with self._reached("read"):
            found = [blob.name for blob in self._bucket.list_blobs(prefix=f"{folder}/" if folder else None)]
        return sorted(name.removeprefix(self._prefix) for name in found if not name.endswith("/"))

    def append_log(self, name: str, text: str) -> None:
        """See `Store`. Objects cannot grow: the file is written again."""
        self.write_bytes(name, (self.read_bytes(name) or b"") + text.encode())

    @contextlib.contextmanager
    def lease(self, name: str, ttl_s: float) -> Iterator[None]:
        """See `Store`. Clocks of machines must agree to well within `ttl_s`."""
        mine, over = _Lease(self._blob(name), f"{holder()} {uuid.uuid4().hex[:8]}", ttl_s), threading.Event()
        with self._reached("written"):
            other = mine.take()
        if other:
            raise Busy(f"{self.url}: {name} is held by {other}", mine.deadline)

        def beat() -> None:
            while not over.wait(ttl_s / 4):
                with contextlib.suppress(*_FAULTS):  # the next beat tries again
                    if taker := mine.renew():
                        line = f"error: {self.url}: {name} was lost to {taker}; this process ends"
                        os.write(2, f"{line}\n".encode())
                        os._exit(LOST)

        beating = threading.Thread(target=beat, daemon=True)
        beating.start()
        try:
            yield
        finally:
            over.set()
            beating.join()
            with contextlib.suppress(*_FAULTS):
                mine.give_back()

    def folder(self, name: str) -> Path | None:
        """See `Store`."""
        return None

    def push(self, local: Path, name: str) -> None:
        """See `Store`. Files that are there with the same bytes are not sent; those gone locally are deleted.

        While a numbered folder changes it lacks its mark, without which `pull` leaves it out.

        Hidden files and what Orbax has not finished are left out; a file that goes meanwhile is sent the next time.
        """
        paths = {path.relative_to(local).as_posix(): path for path in sorted(local.rglob("*"))}
        files = {short: path for short, path in paths.items() if not _passing(short) and path.is_file()}
        with self._reached("written"):
            there, steps = self._digests(name), dict[str, list[str]]()
            for short in sorted({*there, *files}):
                if not short.endswith(_MARK):
                    steps.setdefault(_step_of(short), []).append(short)
            for step, shorts in sorted(steps.items()):
                self._push_step(name, step, {short: files.get(short) for short in shorts}, there)

    def _push_step(
        self, name: str, step: str, files: Mapping[str, Path | None], there: Mapping[str, str]
    ) -> None:
        """The files of a numbered folder, or ("") those outside of any; None for those that are gone."""
        changed, lost = dict[str, bytes | None](), False
        for short, path in files.items():
            try:
                data = path.read_bytes() if path else None
            except FileNotFoundError:  # it went meanwhile
                lost = True
                continue
            if data is None or there.get(short) != _digest(data):
                changed[short] = data
        mark = f"{step}/{_MARK}"
        if step and mark in there and changed:
            self._blob(f"{name}/{mark}").delete(timeout=_TIMEOUT_S)
        for short, data in changed.items():
            if data is not None:
                self._blob(f"{name}/{short}").upload_from_string(data, timeout=_TIMEOUT_S)
            elif short in there:
                with contextlib.suppress(exceptions.NotFound):
                    self._blob(f"{name}/{short}").delete(timeout=_TIMEOUT_S)
        if step and not lost and any(files.values()) and (changed or mark not in there):
            self._blob(f"{name}/{mark}").upload_from_string(b"", timeout=_TIMEOUT_S)

    def pull(self, name: str, local: Path) -> None:
        """See `Store`."""
        with self._reached("read"):
            there = self._digests(name)
            for short, digest in there.items():
                if short.endswith(_MARK) or (_step_of(short) and f"{_step_of(short)}/{_MARK}" not in there):
                    continue
                path = local / short
                if path.is_file() and _digest(path.read_bytes()) == digest:
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                aside = path.with_name(f".{path.name}.{os.getpid()}")
                aside.write_bytes(self._blob(f"{name}/{short}").download_as_bytes(timeout=_TIMEOUT_S))
                aside.replace(path)

    def _digests(self, name: str) -> dict[str, str]:
        """MD5, as the server gives it, of every file below a folder."""
        folder = f"{self._prefix}{name}/"
        found = self._bucket.list_blobs(prefix=folder)
        return {
            blob.name.removeprefix(folder): blob.md5_hash for blob in found if not blob.name.endswith("/")
        }

    def check(self) -> None:
        """See `Store`."""
        blob = self._blob(f".probe-{uuid.uuid4().hex}")
        with self._reached("written"):
            blob.upload_from_string(b"{}", timeout=10, retry=None)
            blob.delete(timeout=10)


def _step_of(short: str) -> str:
    """The outermost folder of a file whose name is a number; "" where there is none."""
    found = re.match(r"((?:[^/]+/)*?\d+)/", short)
    return found[1] if found else ""


def _passing(short: str) -> bool:
    """Whether a file is on its way to another name: hidden, or in a checkpoint that Orbax is writing."""
    return any(part[0] == "." or "orbax-checkpoint-tmp" in part for part in short.split("/"))


def _digest(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
