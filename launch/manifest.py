"""Manifests from templates: filled leaf by leaf, then held to an exact shape, so that no typo reaches a cluster.

A shape is what a manifest must be: a dict of shapes (exactly these keys; `key?` may be missing), a list with the
shape of its one or more items, a tuple of the values allowed, a compiled pattern for text, or one of the types
int (above or equal 0), bool and str (not empty).
"""

import re
import string
from collections.abc import Iterator, Mapping
from typing import Any

Manifest = Any  # what YAML holds: dicts, lists, text, numbers


def fill(template: Manifest, values: Mapping[str, Any]) -> Manifest:
    """The template with each `${name}` replaced by a value, which keeps its type where it is the whole leaf.

    Values are put into leaves after parsing, so that no value can change the structure. Entries of a dict that are
    filled with None are left out. Raises ValueError for a name without a value and for a value without a name.
    """
    used: set[str] = set()
    try:
        filled = _fill(template, values, used)
    except KeyError as error:
        raise ValueError(f"the template asks for {error}, which nobody gives") from None
    if unused := sorted(values.keys() - used):
        raise ValueError(f"the template has no place for {', '.join(unused)}")
    return filled


def _fill(tree: Manifest, values: Mapping[str, Any], used: set[str]) -> Manifest:
    if isinstance(tree, dict):
        filled = {key: _fill(value, values, used) for key, value in tree.items()}
        return {key: value for key, value in filled.items() if value is not None}
    if isinstance(tree, list):
        return [_fill(value, values, used) for value in tree]
    if not isinstance(tree, str):
        return tree
    used.update(string.Template(tree).get_identifiers())
    whole = re.fullmatch(r"\$\{(\w+)\}", tree)
    return values[whole[1]] if whole else string.Template(tree).substitute(values)


def problems(manifest: Manifest, shape: Any, place: str = "") -> Iterator[str]:
    """What is wrong with a manifest, a line each; nothing if it has the shape."""
    here = place or "the manifest"
    if isinstance(shape, dict):
        if not isinstance(manifest, dict):
            yield f"{here}: {manifest!r} is no mapping"
            return
        asked = {key.removesuffix("?"): value for key, value in shape.items()}
        yield from (f"{here}: no field {key!r} is known here" for key in manifest if key not in asked)
        yield from (f"{here}: {key!r} is missing" for key in shape if key[-1] != "?" and key not in manifest)
        for key in manifest.keys() & asked.keys():
            yield from problems(manifest[key], asked[key], f"{place}.{key}" if place else key)
    elif isinstance(shape, list):
        if not isinstance(manifest, list) or not manifest:
            yield f"{here}: {manifest!r} is no list with items"
            return
        for number, item in enumerate(manifest):
            yield from problems(item, shape[0], f"{place}[{number}]")
    elif not _fits(manifest, shape):
        yield f"{here}: {manifest!r} is not {_name(shape)}"


def _fits(leaf: Any, shape: Any) -> bool:
    if isinstance(shape, tuple):
        return any(type(leaf) is type(value) and leaf == value for value in shape)
    if isinstance(shape, re.Pattern):
        return isinstance(leaf, str) and shape.fullmatch(leaf) is not None
    return type(leaf) is shape and (leaf != "" if shape is str else shape is bool or leaf >= 0)


def _name(shape: Any) -> str:
    if isinstance(shape, tuple):
        return " or ".join(map(repr, shape))
    return f"like {shape.pattern}" if isinstance(shape, re.Pattern) else f"a good {shape.__name__}"
