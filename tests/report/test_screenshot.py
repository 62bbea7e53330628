"""The parts of taking a picture that need no browser; the browser itself is in test_browser.py."""

import os
import stat

import pytest

from research.report.screenshot import browser, main, screenshot


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<!doctype html>", encoding="utf-8")
    return path


def fake_browser(folder, monkeypatch, script):
    """A `chromium` on PATH that runs a shell script."""
    path = folder / "bin" / "chromium"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")


def test_a_missing_browser_is_one_clear_line(monkeypatch, tmp_path, page, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="install it: apt-get install chromium"):
        browser()
    assert main([str(page), str(tmp_path / "out.png")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_missing_page_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such page"):
        screenshot(tmp_path / "none.html", tmp_path / "out.png")


def test_the_picture_the_browser_wrote_replaces_the_old_one(monkeypatch, tmp_path, page):
    script = 'for a in "$@"; do case $a in --screenshot=*) echo "$@" > "${a#--screenshot=}";; esac; done'
    fake_browser(tmp_path, monkeypatch, script)
    out = tmp_path / "out.png"
    out.write_text("old", encoding="utf-8")
    assert main([str(page), str(out), "--width", "500", "--height", "400"]) == 0
    arguments = out.read_text(encoding="utf-8").split()
    assert "--window-size=500,400" in arguments
    assert arguments[-1] == page.as_uri()


@pytest.mark.parametrize(
    ("script", "message"), [("echo sad >&2; exit 3", "code 3: sad"), ("exit 0", "no picture")]
)
def test_a_failing_browser_leaves_the_old_picture(monkeypatch, tmp_path, page, script, message):
    fake_browser(tmp_path, monkeypatch, script)
    out = tmp_path / "out.png"
    out.write_text("old", encoding="utf-8")
    with pytest.raises(RuntimeError, match=message):
        screenshot(page, out)
    assert out.read_text(encoding="utf-8") == "old"
