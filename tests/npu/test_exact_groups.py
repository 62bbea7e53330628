"""What rides on what, and which tensors are laid out in bricks."""

from research.bench.recipes import Layer, make
from research.npu.chip import U55_128, U85_128, Chip
from research.npu.exact_groups import grouped, in_place, inner, lay_out, operation_of
from research.npu.exact_lowering import steps_of
from research.npu.exact_steps import Step
from research.npu.network import read_network

RECIPE = (
    Layer("input", "image", like=(16, 16, 16)),
    Layer("conv", "a", ("image",), width=24, act="relu"),
    Layer("conv", "b", ("a",), width=24),
    Layer("add", "sum", ("a", "b")),
    Layer("conv", "left", ("sum",), width=20),
    Layer("conv", "right", ("sum",), width=12),
    Layer("concat", "both", ("left", "right")),
    Layer("conv", "out", ("both",), width=8),
)


def _groups(chip: Chip, *, grouping: bool = True) -> dict[str, Step]:
    groups = grouped(steps_of(read_network(make(RECIPE, 1).model), chip), chip, grouping=grouping)
    lay_out(groups, chip)
    return {first.name: first for first in groups}


def test_a_sum_rides_on_its_last_layer_where_the_chip_chains() -> None:
    chained = _groups(U85_128)
    assert [step.kind for step in chained["b"].riders] == ["Add"]
    assert [step.kind for step in chained["a"].riders] == ["Relu"]
    op = operation_of(chained["b"])
    assert not op.written
    assert op.riders[0].other is not None
    assert op.riders[0].other.shape == (16, 16, 24)
    assert len(inner(chained["b"])) == 1
    for groups in (_groups(U55_128), _groups(U85_128, grouping=False)):
        assert groups["sum"].kind == "Add"
        assert in_place(groups["sum"]) in {view.area for view in groups["sum"].inputs}


def test_layouts() -> None:
    groups = _groups(U85_128)
    assert groups["a"].ifm.area.linear
    assert not groups["b"].ifm.area.linear
    both = groups["left"].ofm.area
    assert both is groups["right"].ofm.area is groups["out"].ifm.area
    assert both.linear  # its second part begins inside a brick
    assert groups["out"].last.area.linear
    assert operation_of(groups["right"]).ofm.shape == (16, 16, 12)
