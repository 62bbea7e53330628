"""Makes a figure's SVG fit to stand inside an HTML page: own identifiers, the page's colours and font."""

import html
import re

THEME = {
    "#222426": "ink",
    "#d5d8dc": "line",
    "#ffffff": "paper",
    "#0072b2": "blue",
    "#56b4e9": "sky",
    "#009e73": "green",
    "#e69f00": "orange",
    "#d55e00": "red",
    "#cc79a7": "pink",
}
"""Figure colour -> CSS variable of the page, so that a figure follows the reader's light or dark theme."""


def inline_svg(svg: str, prefix: str, label: str) -> str:
    """The `<svg>` element of a matplotlib SVG file, ready for a page.

    `prefix` makes its identifiers unique on the page and `label` is read aloud instead of the picture. The
    style sheet that matplotlib adds (it would apply to the whole page) becomes two attributes of the element.
    Raises ValueError if `svg` holds no svg element or `prefix` is not a plain word.
    """
    start = svg.find("<svg")
    if start < 0:
        raise ValueError("not an SVG file: it holds no <svg element")
    if not re.fullmatch(r"[a-z][a-z0-9-]*", prefix):
        raise ValueError(
            f"the prefix of a figure's identifiers must be a plain lower-case word, not {prefix!r}"
        )
    text = re.sub(r"<style[^>]*>.*?</style>", "", svg[start:], flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]*)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]*)\)", rf"url(#{prefix}-\1)", text)
    text = re.sub(r'xlink:href="#([^"]*)"', rf'href="#{prefix}-\1"', text)
    text = re.sub(r"font-family: [^;\"]*;?\s*", "", text)
    for color, name in THEME.items():
        text = re.sub(rf"(?<=[:\s]){color}\b", f"var(--{name}, {color})", text)
    head, rest = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    if box is None:
        raise ValueError("the <svg element has no viewBox, so it cannot be scaled")
    quoted = html.escape(label)
    style = "stroke-linejoin:round;stroke-linecap:butt"
    return f'<svg {box.group(0)} role="img" aria-label="{quoted}" style="{style}">{rest.strip()}'
