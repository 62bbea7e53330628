"""The fuzzer finds nothing in our reader, and everything in readers that misbehave."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from zlib import crc32

import numpy as np
import pytest

from research.bench.fuzz import BAD, DAMAGES, answers, damage, judge, main, sound_files
from research.graph.read import read

FILES = (bytes(range(256)) * 4, b"\0" * 999)


def misbehaving(model: bytes) -> str:
    """Does something else wrong for other files."""
    match crc32(model) % 8:
        case 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        case 2:
            time.sleep(60)
        case 3:
            np.ones(2**31)
        case 4:
            raise KeyError("no ValueError")
    return "refused"


def expected(model: bytes) -> str:
    return {1: "crash", 2: "hang", 3: "memory", 4: "crash"}.get(crc32(model) % 8, "refused")


def test_misbehaviour_is_seen_and_survived(capfd: pytest.CaptureFixture[str]) -> None:
    tried = ([expected(damage(FILES, seed, i)[1]) for i in range(5)] for seed in range(999))
    seed, wanted = next(
        (i, w) for i, w in enumerate(tried) if sorted(w) == ["crash", "crash", "hang", "memory", "refused"]
    )
    found = list(answers(FILES, 5, seed, judge=misbehaving, limit_s=1.0))
    assert [a.outcome for a in found] == wanted
    assert [a.number for a in found] == list(range(5))
    capfd.readouterr()  # the traceback of the child that died of a KeyError


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    return sound_files()


def test_the_files_are_sound_small_and_of_every_format(files: list[bytes]) -> None:
    programs = [read(f) for f in files]
    kinds = {frozenset(p.dtype(t.name) for t in p.graph.tensors) for p in programs}
    assert kinds == {frozenset({"float32"}), frozenset({"int8"}), frozenset({"int8", "int16"})}
    assert max(map(len, files)) < 100_000
    assert [judge(f) for f in files] == ["runs"] * len(files)


def test_damage_is_the_same_every_time(files: list[bytes]) -> None:
    made = [damage(files, 3, i) for i in range(50)]
    assert made == [damage(files, 3, i) for i in range(50)]
    assert made != [damage(files, 4, i) for i in range(50)]
    assert Counter(kind for kind, _ in made) == dict.fromkeys(DAMAGES, 10)
    assert sum(model in files for _, model in made) < 5


def test_our_reader_answers_every_file(files: list[bytes]) -> None:
    found = Counter(a.outcome for a in answers(files, 300, 0))
    assert found.total() == 300
    assert not found.keys() & set(BAD)
    assert found["refused"] > 150
    assert found["runs"] > 10


def test_errors_of_more_than_one_line_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: bytes) -> None:
        raise ValueError("one\ntwo")

    monkeypatch.setattr("research.bench.fuzz.read", refuse)
    assert judge(b"") == "not one line"


def test_the_command_prints_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "20", "--check"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["files"] == 20 == figures["refused"] + figures["runs"] + figures["read, not run"]
    assert figures["missed"] == []
