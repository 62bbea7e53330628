"""Physical compaction: channels that contribute nothing are cut out of every array they stand in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.pytrees import ChannelGroup, flatten, nearest, unflatten

Tree = Any


def compact(
    groups: Sequence[ChannelGroup], keep: Mapping[str, np.ndarray], params: Tree, norm_stats: Tree
) -> tuple[Tree, Tree]:
    """`(params, norm_stats)` with only the `keep` {group: channel indices} left, in their order.

    Output-equal when the removed channels are gated to zero. Raises ValueError for an unknown group, an empty
    or repeated selection, or an index outside the group.
    """
    known = {g.name: g for g in groups}
    flat, stats = flatten(params), flatten(norm_stats)
    for name, index in keep.items():
        if name not in known:
            raise ValueError(f"no channel group {name!r}; {nearest(name, known)}")
        group, index = known[name], np.asarray(index)
        chosen = set(index.tolist())
        if not chosen or len(chosen) != len(index) or not chosen <= set(range(group.size)):
            raise ValueError(f"group {name!r}: keep distinct channels, at least one, each below {group.size}")
        for tree, places in ((flat, group.params), (stats, group.norm_stats)):
            for path, axis in places:
                tree[path] = np.take(np.asarray(tree[path]), index, axis)
    return unflatten(flat), unflatten(stats)


def close(groups: Sequence[ChannelGroup], keep: Mapping[str, np.ndarray], params: Tree) -> Tree:
    """The uncompacted parameters with every channel outside `keep` gated to zero: `compact` must equal it."""
    flat = dict(flatten(params))
    for group in groups:
        if group.name in keep:
            gate = np.zeros(group.size, np.float32)
            gate[np.asarray(keep[group.name])] = 1.0
            for path in group.gated:
                flat[path] = np.asarray(flat[path]) * gate
    return unflatten(flat)
