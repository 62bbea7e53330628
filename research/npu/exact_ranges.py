"""Who is in memory when, and where: live ranges of areas and weight buffers, and their addresses.

After `ExtractLiveRangesFromCascades` of `live_range.cpp` and `hillclimb_allocator.cpp` of ethos-u-vela 5.2.0. A step
takes two instants, so that a buffer can be free in its second half.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from research.npu.exact_buffers import Buffers
from research.npu.exact_groups import in_place, inner
from research.npu.exact_steps import HOST, Area, Step
from research.npu.operation import Where

_TRIES, _PATIENCE = 2000, 300


@dataclasses.dataclass
class Range:
    """`size` bytes of `name`, alive at the instants from `start` to `end`; `address` once it is placed."""

    name: str
    size: int
    start: int
    end: int
    address: int = 0

    def meets(self, other: "Range") -> bool:
        """Are both alive at some instant?"""
        return self.start <= other.end and other.start <= self.end

    def mark(self, start: int, end: int) -> None:
        """Makes it live at least that long."""
        self.start, self.end = min(self.start, start), max(self.end, end)


def live_ranges(groups: Sequence[Step], buffers: Sequence[Buffers], memory: Where = "sram") -> list[Range]:
    """The ranges of one memory, in the order in which they are met."""
    found, of = list[Range](), dict[Area, Range]()
    ends = 2 * len(groups)

    def mark(area: Area, time: int) -> None:
        if area.memory != memory or area.constant:
            return
        if area not in of:
            of[area] = Range(area.name, area.size, time, time + 1)
            found.append(of[area])
        of[area].mark(0 if area.given else time, ends + 1 if area.result else time + 1)

    for index, (first, held) in enumerate(zip(groups, buffers, strict=True)):
        time = 2 * index
        taken = in_place(first) if first.kind != HOST else None
        if taken is not None and taken.memory == memory and first.last.area not in of:
            mark(taken, time)
            of[first.last.area] = of[taken]
        if memory == "sram" and held.encoded is not None:
            last = (len(held.encoded.ranges) - 1) % max(len(held.parts), 1)
            for part, size in enumerate(held.parts):
                start = time - 1 if part == 0 and held.ahead else time
                found.append(Range(f"{first.name} weights", size, start, time + (part == last)))
        hidden = inner(first)
        for step in (first, *first.riders):
            for view in (*step.inputs, step.ofm):
                if view.area not in hidden:
                    mark(view.area, time)
            if step.scratch is not None:
                mark(step.scratch, time)
    return found


def place(ranges: Sequence[Range]) -> int:
    """Gives every range an address and returns the bytes that they need together.

    Ranges are placed lowest first in an order of urgency; where that wastes memory, orders near it are tried.
    """
    if not ranges:
        return 0
    ends = max(r.end for r in ranges) + 2
    used = np.zeros(ends + 1, np.int64)
    for r in ranges:
        used[r.start + 1 : r.end + 2] += r.size
    least = int(used.max())
    urgency = [int(used[r.start + 1 : r.end + 2].max()) for r in ranges]
    order = sorted(
        range(len(ranges)),
        key=lambda i: (-urgency[i], ranges[i].start - ranges[i].end, ranges[i].start, -ranges[i].size, i),
    )
    near = [[j for j, other in enumerate(ranges) if j != i and r.meets(other)] for i, r in enumerate(ranges)]
    best, best_order = _put(ranges, order, near), order
    rng, since = np.random.default_rng(0), 0
    for _ in range(_TRIES):
        if best <= least or since > _PATIENCE:
            break
        top = max(range(len(ranges)), key=lambda i: ranges[i].address + ranges[i].size)
        turns = [k for k, i in enumerate(best_order) if i == top or i in near[top]]
        a, b = rng.choice(turns), rng.integers(len(order))
        tried = list(best_order)
        tried[a], tried[b] = tried[b], tried[a]
        size = _put(ranges, tried, near)
        since = 0 if size < best else since + 1
        if size <= best:
            best, best_order = size, tried
    return _put(ranges, best_order, near)


def _put(ranges: Sequence[Range], order: Sequence[int], near: Sequence[Sequence[int]]) -> int:
    placed, top = set[int](), 0
    for i in order:
        own, address = ranges[i], 0
        for begin, size in sorted((ranges[j].address, ranges[j].size) for j in near[i] if j in placed):
            if begin >= address + own.size:
                break
            address = max(address, begin + size)
        own.address = address
        placed.add(i)
        top = max(top, address + own.size)
    return top
