"""Steps: shapes with more channels have as many elements; what is read is made before."""

from math import prod

from hypothesis import given
from hypothesis import strategies as st

from research.npu.exact_steps import Area, Step, View, deepen, deeper, in_order


@given(st.tuples(st.integers(1, 64), st.integers(1, 64), st.integers(1, 7)))
def test_deeper_shapes_hold_the_same(shape: tuple[int, int, int]) -> None:
    found = deeper(shape)
    assert prod(found) == prod(shape)
    assert found[2] >= min(16, prod(shape))


def test_a_shallow_sum_becomes_deep_and_a_broadcast_does_not() -> None:
    maps = [View(Area(name, (16, 16, 1)), (16, 16, 1)) for name in "abc"]
    step = Step("c", "Add", maps[0], maps[2], maps[1])
    deepen(step)
    assert step.ofm.shape == step.ifm.shape == (4, 4, 16)
    other = Step("c", "Add", maps[0], maps[2], View(Area("b", (1, 16, 1)), (1, 16, 1)))
    deepen(other)
    assert other.ofm.shape == (16, 16, 1)


def test_second_inputs_are_made_first() -> None:
    image, left, right, total = (View(Area(n, (4, 4, 16)), (4, 4, 16)) for n in ("image", "a", "b", "sum"))
    steps = [Step("a", "Conv2D", image, left), Step("b", "Conv2D", image, right)]
    steps.append(Step("sum", "Add", left, total, right))
    for step in steps:
        step.ofm.area.makers.append(step)
    assert [step.name for step in in_order([total.area])] == ["b", "a", "sum"]
