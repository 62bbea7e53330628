"""The gallery page: best and worst by error / box, whole in one file."""

import re
from pathlib import Path

import numpy as np
import pytest

from research.report.hands_page import SHOWN_PX, hands_page, ranked

RNG = np.random.default_rng(0)
TRUTH = np.tile(RNG.uniform(0.2, 0.8, (1, 21, 2)), (6, 1, 1))
IMAGES = RNG.uniform(size=(6, 16, 16))
OFF = np.array([0.05, 0.3, 0.01, 0.2, 0.1, 0.4])


def shifted() -> np.ndarray:
    return TRUTH + OFF[:, None, None] * [1.0, 0.0]


def test_hands_are_ranked_by_error_in_boxes() -> None:
    errors, order = ranked(shifted(), TRUTH)
    box = np.ptp(TRUTH[0], axis=0).max()
    np.testing.assert_allclose(errors, OFF / box, rtol=1e-4)
    assert order.tolist() == [2, 0, 4, 3, 1, 5]


def test_a_page_shows_best_and_worst_and_needs_no_other_file(tmp_path: Path) -> None:
    page = hands_page(tmp_path / "hands.html", IMAGES, TRUTH, {"a <net>": shifted()}, each=2).read_text()
    assert re.findall(r"<figcaption>([\d.]+)", page) == [
        f"{x:.3f}" for x in ranked(shifted(), TRUTH)[0][[2, 0, 5, 1]]
    ]
    assert "a &lt;net&gt;: error / box" in page
    assert page.count("data:image/png;base64,") == 4
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert page.count("<line ") == 4 * 2 * 20
    x, y = TRUTH[2, 0] * SHOWN_PX
    assert f'x1="{x:.1f}" y1="{y:.1f}"' in page


def test_arrays_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 networks: nothing to show"):
        hands_page(tmp_path / "a.html", IMAGES, TRUTH, {})
    with pytest.raises(ValueError, match="5 images, 6 true hands"):
        hands_page(tmp_path / "a.html", IMAGES[:5], TRUTH, {"a": TRUTH})
    with pytest.raises(ValueError, match=r"two arrays \[N,21,2\]"):
        hands_page(tmp_path / "a.html", IMAGES, TRUTH, {"a": TRUTH[:5]})
    assert list(tmp_path.iterdir()) == []
