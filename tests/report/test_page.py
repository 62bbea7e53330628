import builtins
import os
import re
from html.parser import HTMLParser

import pytest

from research.report.page import render, write_report
from research.report.tables import cells
from tests.report.example import example_result, forget

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Tags in order with their attributes, text by tag, and a complaint where nesting breaks."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.rows, self.broken = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.broken.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def html():
    return render(example_result())


def test_the_table_comes_first_and_holds_the_same_cells_as_the_other_tables(html):
    page = Page(html)
    assert page.broken == []
    assert page.open == []
    sections = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert sections == ["table", "words", "figures", "layers", "hands", "ledger", "energy", "numbers"]
    body = [tuple(cell.replace("\u00a0", " ") for cell in row) for row in page.rows[1:7]]
    assert body == [cells(row) for row in example_result()["rows"]]


def test_nothing_outside_the_file_is_named(html):
    assert re.findall(r"https?://", re.sub(r"xmlns(:\w+)?=[\"']https?://[^\"']*[\"']", "", html)) == []
    assert "//" not in re.sub(r"xmlns(:\w+)?=[\"']https?://|base64,[A-Za-z0-9+/=]+", "", html)
    page = Page(html)
    for tag, attrs in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                assert value.startswith(("#", "data:"))
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    assert any(attrs.get("rel") == "icon" and attrs["href"].startswith("data:") for _, attrs in page.tags)


def test_links_and_identifiers_fit(html):
    tags = Page(html).tags
    identifiers = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(identifiers) == len(set(identifiers))
    assert {attrs["href"][1:] for tag, attrs in tags if tag == "a"} <= set(identifiers)


def test_hands_are_drawn_with_truth_and_prediction(html):
    assert html.count("data:image/png;base64,") == 8
    assert len(re.findall(r'<g class="true">', html)) == 8
    assert len(re.findall(r'<g class="v1">', html)) == len(re.findall(r'<g class="v2">', html)) == 4


def test_one_run_is_stamped_and_more_are_not(html):
    assert "demo (n = 1)" in html
    assert "One run only." in html
    several = render(example_result() | {"n": 3, "demo": False})
    assert "One run only." not in several
    assert 'class="stamp"' not in several


def test_the_same_result_gives_the_same_page(html):
    assert render(example_result()) == html


def test_hostile_names_stay_text():
    evil = "</style></svg><script>alert(1)</script><img src=http://x/ onerror=alert(1)>\"'{{ 7*7 }}"
    result = example_result()
    for key in ("name", "command", "created", "device"):
        result[key] = evil
    result["energy"]["note"] = evil
    result["versions"] = {evil: evil}
    for row in result["rows"]:
        row |= {"name": evil, "baseline": evil, "claim": evil, "chip": evil}
    result["arms"][evil] = result["arms"]["v2+sparse+distill+gates"]
    result["rows"][-1]["arm"] = evil
    arm = result["arms"][evil]
    for layer in arm["layers"]["Ethos-U85-128"]:
        layer |= {"name": evil, "op": evil, "weight_format": evil, "note": evil}
    arm["ledger"] = [{"kind": evil, "name": evil, "detail": {evil: [evil]}}]
    arm["stages"] = [{"stage": evil, "ms_simulated": 1.0, "error_px": 1.0}]
    page = Page(render(result))
    assert page.broken == []
    assert not [tag for tag, _ in page.tags if tag in ("script", "img")]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert all("{{ 7*7 }}" in row[1] for row in page.rows[1:7])


def test_a_result_that_knows_nothing_still_makes_a_page():
    result = example_result() | {"gallery": [], "versions": {}}
    result["energy"] |= {"scale": None, "p_static_mw": None}
    forget(result)
    for arm in result["arms"].values():
        arm |= {"train": {"step": [], "error_px": [], "loss": []}, "layers": {}, "stages": [], "ledger": []}
    page = Page(render(result))
    assert page.broken == []
    sections = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert sections == ["table", "words", "figures", "energy", "numbers"]


def test_an_old_report_survives_a_bad_result(tmp_path):
    path = tmp_path / "report.html"
    assert write_report(example_result(), path) == path
    old = path.read_text(encoding="utf-8")
    broken = example_result()
    del broken["rows"][0]["mj"]
    with pytest.raises(ValueError, match=r"rows\[0\].mj is missing"):
        write_report(broken, path)
    assert path.read_text(encoding="utf-8") == old
    assert os.listdir(tmp_path) == ["report.html"]


def test_missing_jinja2_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.split(".")[0] == "jinja2":
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"jinja2: pip install '\.\[report\]'"):
        render(example_result())
