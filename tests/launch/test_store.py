"""The local store: whole writes, leases that die with their process, one line for what the disk refuses."""

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.store import Busy, LocalStore, decode, encode, life, open_store, still_alive

HOLD = """
import sys, time
from launch.store import open_store
with open_store(sys.argv[1]).lease("driver.lock", 60):
    print("held", flush=True)
    time.sleep(60)
"""


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "a" / "b"))
    assert store.read("trials/00000/result.json") is None
    store.write("trials/00000/result.json", {"rows": [{"x": 1.5}]})
    assert store.read("trials/00000/result.json") == {"rows": [{"x": 1.5}]}
    store.write("trials/00000/result.json", {})
    assert store.read("trials/00000/result.json") == {}
    store.append_log("trials/00000/attempts.log", "one\n")
    store.append_log("trials/00000/attempts.log", "two\n")
    folder = store.folder("trials/00000")
    assert folder is not None
    assert (folder / "attempts.log").read_text() == "one\ntwo\n"
    assert store.names("trials") == ["trials/00000/attempts.log", "trials/00000/result.json"]
    assert store.names("plan") == []
    assert store.read_bytes("trials/00000/attempts.log") == b"one\ntwo\n"
    assert store.read_bytes("trials/00001/attempts.log") is None


@given(
    st.dictionaries(
        st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
    )
)
def test_objects_survive_their_bytes(obj: dict[str, object]) -> None:
    assert decode(encode(obj), "here") == obj


@pytest.mark.parametrize("data", [b"", b"{", b'{"a": 1', b"[1]", b"\xff\xfe"])
def test_a_damaged_file_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "spec.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"spec\.json .*delete it and go on") as refused:
        open_store(str(tmp_path)).read("spec.json")
    assert "\n" not in str(refused.value)


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    store, seen, over = LocalStore(str(tmp_path)), [], threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.append(store.read("x.json"))

    store.write("x.json", {"n": 0})
    reader = threading.Thread(target=look)
    reader.start()
    for n in range(200):
        store.write("x.json", {"n": n, "padding": "." * 20_000})
    over.set()
    reader.join()
    assert len(seen) > 3
    assert all(found is not None and "n" in found for found in seen)
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_lease_is_held_by_one_and_says_by_whom(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    with store.lease("driver.lock", 60):
        with pytest.raises(Busy, match=rf"driver\.lock is held by process {os.getpid()} on "):
            store.lease("driver.lock", 60).__enter__()
        with store.lease("other.lock", 60):
            pass
    with store.lease("driver.lock", 60):
        pass


def test_a_lease_dies_with_its_process(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Busy, match=f"process {other.pid} "):
            LocalStore(str(tmp_path)).lease("driver.lock", 60).__enter__()
        other.send_signal(signal.SIGKILL)
        other.wait()
    with LocalStore(str(tmp_path)).lease("driver.lock", 60):
        pass


def test_a_life_is_known_by_more_than_its_number() -> None:
    assert still_alive(life()) is True
    assert life(2**22 + 1) == ""
    boot, space, number, start = life().split("/")
    assert still_alive(f"{boot}/{space}/{number}/{int(start) - 1}") is False  # its number was another's before
    assert still_alive(f"elsewhere/{space}/{number}/{start}") is None
    assert still_alive("") is None
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        known = life(other.pid)
        assert still_alive(known) is True
        other.kill()
        other.wait()
        assert still_alive(known) is False


def full_disk(root: str, told: "multiprocessing.connection.Connection") -> None:
    """Writes more than this process may, and tells what that raised and what it left."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = LocalStore(root)
    store.write("x.json", {"n": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        store.write("x.json", {"n": 2, "padding": "." * 100_000})
    except OSError as error:
        told.send((str(error), store.read("x.json"), sorted(os.listdir(root))))


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=full_disk, args=(str(tmp_path), theirs))
    child.start()
    assert ours.poll(60)
    error, found, names = ours.recv()
    child.join()
    assert error.endswith("cannot be written: File too large")
    assert found == {"n": 1}
    assert names == ["x.json"]


def test_check_writes_and_cleans_up(tmp_path: Path) -> None:
    open_store(str(tmp_path / "new")).check()
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"the store .*file cannot be written: (Not a directory|File exists)"):
        open_store(str(tmp_path / "file")).check()
    with pytest.raises(OSError, match="the store /proc/nowhere cannot be written"):
        open_store("/proc/nowhere").check()


def test_pushing_and_pulling_a_local_store_does_nothing(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.push(tmp_path / "nowhere", "trials/00000")
    store.pull("trials/00000", tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_another_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="a store is a folder or gs://bucket/prefix"):
        open_store("s3://bucket/x")


def test_without_googles_package_a_bucket_says_what_is_missing() -> None:
    words = "import sys; sys.modules['google.cloud'] = None; from launch.store import open_store; "
    words += "open_store('gs://bucket/x')"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last == "ValueError: --store 'gs://bucket/x' needs google-cloud-storage: pip install '.[gcs]'"


def test_files_are_plain_json(tmp_path: Path) -> None:
    open_store(str(tmp_path)).write("x.json", {"b": 1, "a": [1, 2]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"b": 1, "a": [1, 2]}
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o644
