"""A picture of a page by headless Chromium: `python -m research.report.screenshot report.html out.png`.

The browser starts with an empty profile and may reach nothing: every host name resolves to an error.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--no-default-browser-check",
    "--no-first-run",
    "--force-color-profile=srgb",
    "--enable-logging=stderr",
    "--v=0",
)


def browser() -> str:
    """The path of a Chromium. Raises FileNotFoundError with what to do if there is none."""
    for name in BROWSERS:
        found = shutil.which(name)
        if found:
            return found
    names = ", ".join(BROWSERS)
    raise FileNotFoundError(f"no browser found (looked for {names}); install it: apt-get install chromium")


def visit(page: str | os.PathLike[str], *flags: str, timeout_s: float = 120.0) -> str:
    """Opens a local page in a fresh headless browser with extra `flags` and returns the browser's log.

    Console messages of the page appear in it as lines with "CONSOLE". Raises FileNotFoundError if the page or
    a browser is missing and RuntimeError if the browser fails or does not end in time.
    """
    path = Path(page).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no such page: {path}")
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        command = [browser(), *FLAGS, f"--user-data-dir={profile}", *flags, path.as_uri()]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"the browser did not end within {timeout_s:g} s") from error
    if done.returncode != 0:
        raise RuntimeError(f"the browser ended with code {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stderr


def screenshot(
    page: str | os.PathLike[str], picture: str | os.PathLike[str], width_px: int = 1280, height_px: int = 1500
) -> Path:
    """Writes the top `width_px` x `height_px` of a local page to the PNG file `picture` and returns its path.

    Raises as `visit` does, and RuntimeError if no picture came out; an old picture then stays.
    """
    target = Path(picture).resolve()
    with tempfile.TemporaryDirectory(prefix="." + target.name, dir=target.parent) as folder:
        fresh = Path(folder) / "page.png"
        log = visit(page, f"--screenshot={fresh}", f"--window-size={width_px},{height_px}")
        if not fresh.is_file():
            raise RuntimeError(f"the browser wrote no picture: {log.strip()[-500:]}")
        os.replace(fresh, target)
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 done, 2 one line of what is missing."""
    parser = argparse.ArgumentParser(prog="python -m research.report.screenshot", description=__doc__)
    parser.add_argument("page", type=Path, help="a local HTML file")
    parser.add_argument("picture", type=Path, help="the PNG file to write")
    parser.add_argument("--width", type=int, default=1280, help="width of the window in px")
    parser.add_argument("--height", type=int, default=1500, help="height of the window in px")
    options = parser.parse_args(arguments)
    try:
        screenshot(options.page, options.picture, options.width, options.height)
    except (OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
