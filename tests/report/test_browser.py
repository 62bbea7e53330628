"""The report in a real browser (slow): no console message, no request. The browser must be installed."""

import json

import pytest
from PIL import Image

from research.report.page import write_report
from research.report.screenshot import screenshot, visit
from tests.report.example import example_result

pytestmark = pytest.mark.slow

BAD_PAGE = """<!doctype html><title>x</title>
<img src="http://127.0.0.1:9/picture.png"><script>console.error("seen " + "here")</script>"""


def requests_of_the_page(net_log) -> set[str]:
    """Addresses other than local files that a page, not the browser for itself, asked for."""
    log = json.loads(net_log.read_text(encoding="utf-8"))
    start = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    found = set()
    for event in log["events"]:
        if event["type"] == start and "url" in event.get("params", {}):
            by_browser = event["params"].get("initiator", "not an origin") == "not an origin"
            if not by_browser and not event["params"]["url"].startswith(("file:", "data:")):
                found.add(event["params"]["url"])
    return found


def console(log: str) -> list[str]:
    return [line for line in log.splitlines() if "CONSOLE" in line]


def test_the_report_opens_without_console_message_or_request(tmp_path):
    page = write_report(example_result(), tmp_path / "report.html")
    log = visit(page, f"--log-net-log={tmp_path / 'net.json'}", f"--screenshot={tmp_path / 'a.png'}")
    assert console(log) == []
    assert requests_of_the_page(tmp_path / "net.json") == set()


def test_the_check_sees_a_page_that_does_both(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(BAD_PAGE, encoding="utf-8")
    log = visit(page, f"--log-net-log={tmp_path / 'net.json'}", f"--screenshot={tmp_path / 'a.png'}")
    assert any("seen here" in line for line in console(log))
    assert requests_of_the_page(tmp_path / "net.json") == {"http://127.0.0.1:9/picture.png"}


def test_the_screenshot_has_the_asked_size_and_shows_something(tmp_path):
    page = write_report(example_result(), tmp_path / "report.html")
    picture = screenshot(page, tmp_path / "report.png", width_px=900, height_px=700)
    with Image.open(picture) as image:
        assert image.size == (900, 700)
        assert len(image.convert("RGB").getcolors(1 << 20)) > 50
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.png"]
