import os

import pytest

from research.report.atomic import write_text


def test_writes_and_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "one\n")
    os.chmod(path, 0o600)
    write_text(path, "två\n")
    assert path.read_bytes() == "två\n".encode()
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \udc80")
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "none" / "a.txt", "x")
