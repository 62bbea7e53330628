import re

import pytest

from research.report.figures import layers_figure, training_figure
from research.report.inline import THEME, inline_svg
from tests.report.example import example_result


def test_two_figures_share_no_identifier_and_every_reference_resolves():
    draw = {"one": layers_figure, "two": training_figure, "three": training_figure}
    drawn = {name: inline_svg(figure(example_result()), name, name) for name, figure in draw.items()}
    found = {name: re.findall(r'\bid="([^"]+)"', svg) for name, svg in drawn.items()}
    every = [identifier for some in found.values() for identifier in some]
    assert len(every) == len(set(every)) > 30
    for name, svg in drawn.items():
        used = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg)
        assert used
        assert {a or b for a, b in used} <= set(found[name])


def test_nothing_leaks_into_the_page():
    svg = inline_svg(layers_figure(example_result()), "a", "b")
    assert svg.startswith("<svg viewBox=")
    assert svg.rstrip().endswith("</svg>")
    for leak in ("<style", "<?xml", "<!DOCTYPE", "font-family", "http://", 'width="4'):
        assert leak not in svg


def test_colours_follow_the_page_with_the_figures_own_as_fallback():
    svg = inline_svg(layers_figure(example_result()), "a", "b")
    assert "var(--ink, #222426)" in svg
    for color in THEME:
        assert not re.search(rf"(?<!, ){color}", svg)


def test_the_label_is_escaped():
    assert 'aria-label="&lt;a&gt; &quot;b&quot; &amp;"' in inline_svg(
        '<svg viewBox="0 0 1 1"></svg>', "a", '<a> "b" &'
    )


@pytest.mark.parametrize(
    ("svg", "prefix", "message"),
    [
        ("<html>", "a", "holds no <svg element"),
        ('<svg viewBox="0 0 1 1"></svg>', "A b", "plain lower-case word"),
        ("<svg></svg>", "a", "no viewBox"),
    ],
)
def test_bad_input_is_named(svg, prefix, message):
    with pytest.raises(ValueError, match=message):
        inline_svg(svg, prefix, "label")
