"""Filling templates and holding manifests to a shape."""

import re
from typing import Any

import pytest

from launch.manifest import fill, problems

TEMPLATE = {"a": "${n}", "b": ["x-${s}", "${items}"], "c": {"d": "${none}", "e": True, "f": 3}}


def test_values_keep_their_type_and_cannot_change_the_structure() -> None:
    got = fill(TEMPLATE, {"n": 4, "s": "y: {z}\n- 1", "items": ["$n", 2], "none": None})
    assert got == {"a": 4, "b": ["x-y: {z}\n- 1", ["$n", 2]], "c": {"e": True, "f": 3}}
    assert TEMPLATE["a"] == "${n}"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"n": 1, "s": "", "items": []}, "asks for 'none'"),
        ({"n": 1, "s": "", "items": [], "none": None, "more": 1, "other": 2}, "no place for more, other"),
    ],
)
def test_names_and_values_must_match(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fill(TEMPLATE, values)


SHAPE = {"a": int, "b": [str], "c?": {"d": ("x", 1)}, "e": re.compile("[a-z]+"), "f": bool}
GOOD = {"a": 0, "b": ["x"], "c": {"d": 1}, "e": "abc", "f": False}


def test_what_fits_has_no_problem() -> None:
    assert list(problems(GOOD, SHAPE)) == []
    assert list(problems({key: GOOD[key] for key in "abef"}, SHAPE)) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"a": "0"}, "a: '0' is not a good int"),
        ({"a": True}, "a: True is not a good int"),
        ({"a": -1}, "a: -1"),
        ({"b": []}, "b: [] is no list with items"),
        ({"b": "x"}, "b: 'x' is no list"),
        ({"b": ["x", ""]}, "b[1]: '' is not a good str"),
        ({"c": None}, "c: None is no mapping"),
        ({"c": {}}, "c: 'd' is missing"),
        ({"c": {"d": True}}, "c.d: True is not 'x' or 1"),
        ({"e": "abc1"}, "e: 'abc1' is not like [a-z]+"),
        ({"e": 1}, "e: 1"),
        ({"f": 0}, "f: 0 is not a good bool"),
        ({"g": 1}, "the manifest: no field 'g' is known here"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], says: str) -> None:
    (found,) = problems(GOOD | change, SHAPE)
    assert found.startswith(says)
