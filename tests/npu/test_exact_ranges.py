"""Addresses in SRAM: nothing overlaps, and no order of placing is better where all can be tried."""

from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from research.npu.exact_ranges import Range, place

_RANGES = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=5
)


@given(_RANGES)
@settings(max_examples=60, deadline=None)
def test_as_good_as_any_order(found: list[tuple[int, int, int]]) -> None:
    ranges = [Range(str(i), 16 * size, start, start + more) for i, (size, start, more) in enumerate(found)]
    peak = place(ranges)
    for i, one in enumerate(ranges):
        assert 0 <= one.address <= one.address + one.size <= peak
        for other in ranges[:i]:
            apart = one.address >= other.address + other.size or other.address >= one.address + one.size
            assert apart or not one.meets(other)
    live = [sum(r.size for r in ranges if r.start <= t <= r.end) for t in range(10)]
    assert peak >= max(live)
    assert peak == min(_first_fit(order) for order in permutations(ranges))


def _first_fit(order: tuple[Range, ...]) -> int:
    taken = list[tuple[Range, int]]()
    for one in order:
        starts = sorted({0, *(a + r.size for r, a in taken if r.meets(one))})
        address = next(
            s for s in starts
            if all(not r.meets(one) or s >= a + r.size or a >= s + one.size for r, a in taken)
        )  # fmt: skip
        taken.append((one, address))
    return max(a + r.size for r, a in taken)


def test_nothing_needs_nothing() -> None:
    assert place([]) == 0
