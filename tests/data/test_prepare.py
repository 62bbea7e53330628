"""The command line that sets up data and peers."""

from pathlib import Path

import pytest

from research.data import prepare
from research.data.prepare import main
from tests.data.test_freihand import write_split
from tests.data.test_mediapipe import LICENCE, make_wheel


def test_mediapipe_prints_its_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digests = make_wheel(tmp_path / "a.whl")
    whole = prepare.prepare_mediapipe
    monkeypatch.setattr(prepare, "prepare_mediapipe", lambda into, wheel: whole(into, wheel, digests))
    assert main(["mediapipe", "--into", str(tmp_path / "out"), "--wheel", str(tmp_path / "a.whl")]) == 0
    assert LICENCE in capsys.readouterr().out
    assert (tmp_path / "out" / "hand_landmark_full.tflite").is_file()


def test_the_real_wheel_is_known_by_its_digests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_wheel(tmp_path / "a.whl")
    assert main(["mediapipe", "--into", str(tmp_path / "out"), "--wheel", str(tmp_path / "a.whl")]) == 1
    assert "holds another" in capsys.readouterr().err


def test_freihand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_split(tmp_path / "archive", "evaluation", 2, 1)
    words = ["freihand", str(tmp_path / "archive"), "--into", str(tmp_path / "sets")]
    assert main([*words, "--splits", "evaluation"]) == 0
    assert str(tmp_path / "sets") in capsys.readouterr().out
    assert main(words) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["mediapipe"])
    assert stopped.value.code == 2
    assert "--into" in capsys.readouterr().err


def test_photographs_need_the_network_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["photographs", str(tmp_path), "--peers", str(tmp_path), "--into", str(tmp_path / "a.npz")]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "prepare mediapipe" in said
    assert list(tmp_path.iterdir()) == []
