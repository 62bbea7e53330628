"""Parameters as flat `{path: leaf}` views of nested dicts: paths, path rules, straight-through, counts."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that live and die together, and where they stand in the arrays.

    `size` channels; `params` and `norm_stats` list the `(path, axis)` that an index of kept channels must be
    taken on; `gated` lists the parameter vectors `[size]` whose zeros make a channel contribute nothing.
    """

    name: str
    size: int
    params: tuple[tuple[str, int], ...]
    norm_stats: tuple[tuple[str, int], ...]
    gated: tuple[str, ...]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dict -> `{"a/b/c": leaf}` in sorted order. Raises ValueError on a key that holds a slash."""
    flat: dict[str, Any] = {}
    for key in sorted(tree):
        if "/" in key:
            raise ValueError(f"key {key!r} holds a slash: it cannot be part of a path")
        value = tree[key]
        path = f"{prefix}{key}"
        flat.update(flatten(value, path + "/") if isinstance(value, Mapping) else {path: value})
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a/b/c": leaf}` -> nested dict, the inverse of `flatten` (which drops empty branches)."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = leaf
    return tree


def map_paths(fn: Callable[[str, Any], Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dict of the same structure (empty branches kept), every leaf replaced by `fn(path, leaf)`."""
    return jax.tree.map_with_path(lambda keys, leaf: fn("/".join(k.key for k in keys), leaf), tree)


def select(patterns: Sequence[str], paths: Iterable[str], what: str = "rule") -> tuple[str, ...]:
    """Paths matched by any glob of `patterns`, in the order of `paths`.

    Raises ValueError when a pattern matches nothing: a rule that is never used is a typo.
    """
    paths = tuple(paths)
    chosen: set[str] = set()
    for pattern in patterns:
        hits = fnmatch.filter(paths, pattern)
        if not hits:
            raise ValueError(f"{what} {pattern!r} matches nothing; {nearest(pattern, paths)}")
        chosen.update(hits)
    return tuple(p for p in paths if p in chosen)


def match_rules(rules: Sequence[tuple[str, Any]], paths: Iterable[str]) -> dict[str, Any]:
    """`{path: value}` by the first rule `(glob, value)` that matches.

    Raises ValueError for a rule that decides nothing and for a path that no rule covers.
    """
    used = [0] * len(rules)
    out: dict[str, Any] = {}
    paths = tuple(paths)
    for path in paths:
        for i, (pattern, value) in enumerate(rules):
            if fnmatch.fnmatchcase(path, pattern):
                used[i] += 1
                out[path] = value
                break
        else:
            raise ValueError(f"no rule covers {path!r}; add one such as ('*', value) at the end")
    for (pattern, _), count in zip(rules, used, strict=True):
        if not count:
            raise ValueError(f"rule {pattern!r} decides nothing; {nearest(pattern, paths)}")
    return out


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error message: a did-you-mean, or a few of the names that exist."""
    known = list(known)
    close = difflib.get_close_matches(word, known, 1, 0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"known: {shown or 'nothing'}"


def straight_through(hard: jax.Array, soft: jax.Array) -> jax.Array:
    """The value of `hard`, to the last bit, with the gradient of `soft` (Bengio et al. 2013)."""
    return jax.lax.stop_gradient(hard) + (soft - jax.lax.stop_gradient(soft))


def count(tree: Any) -> int:
    """Number of scalars in a tree of arrays (or of their shapes)."""
    return int(sum(np.prod(leaf.shape, dtype=np.int64) for leaf in jax.tree.leaves(tree)))
