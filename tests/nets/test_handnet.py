"""The spec of the hand network says of its groups, sites and widths what its arrays say."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research import nets
from research.nets import KEYPOINTS, Block, HandNet
from research.pytrees import flatten
from tests.nets.samples import NET

BLOCKS = st.builds(
    Block,
    st.integers(1, 9),
    st.integers(1, 4),
    st.sampled_from((1, 3, 5)),
    st.sampled_from((1, 2)),
    st.booleans(),
)
NETS = st.builds(
    HandNet, st.integers(5, 12), st.integers(1, 4), st.lists(BLOCKS, max_size=3).map(tuple), st.integers(1, 4)
)
FUSED = replace(NET, blocks=tuple(replace(block, kernel=3, fused=i != 1) for i, block in enumerate(NET.blocks)))
WIDTHS = {"b0": 3, "b2": 10}


def all_shapes(net: HandNet) -> tuple[dict, dict]:
    """`{path: shape}` of the parameters and of the norm statistics."""
    params, norm_stats = nets.shapes(net)
    return tuple({path: leaf.shape for path, leaf in flatten(tree).items()} for tree in (params, norm_stats))


@pytest.mark.parametrize("net", [NET, NET.folded(), FUSED, FUSED.folded()])
def test_groups_stand_where_they_say(net: HandNet) -> None:
    params, norm_stats = all_shapes(net)
    assert [g.name for g in net.groups()] == ["b0", "b1", "b2"]
    for group, block in zip(net.groups(), net.blocks, strict=True):
        assert group.size == block.mid
        for shapes, places in ((params, group.params), (norm_stats, group.norm_stats)):
            assert {shapes[path][axis] for path, axis in places} <= {group.size}
        assert {params[path] for path in group.gated} <= {(group.size,)}
        assert set(group.gated) <= {path for path, _ in group.params}
        assert bool(group.gated) == net.norm
        # no other array of the block has that many channels, so none is forgotten
        listed = {path for path, _ in (*group.params, *group.norm_stats)}
        others = {
            p: s for p, s in (params | norm_stats).items() if p.startswith(group.name) and p not in listed
        }
        assert all(group.size not in shape for shape in others.values()), others


@pytest.mark.parametrize("net", [NET, NET.folded(), FUSED, FUSED.folded()])
def test_resizing_changes_the_arrays_of_the_group_and_no_others(net: HandNet) -> None:
    before, after = all_shapes(net), all_shapes(net.resized(WIDTHS))
    for kind in (0, 1):
        expected = {path: list(shape) for path, shape in before[kind].items()}
        for group in net.groups():
            for path, axis in (group.params, group.norm_stats)[kind]:
                expected[path][axis] = WIDTHS.get(group.name, group.size)
        assert {path: list(shape) for path, shape in after[kind].items()} == expected


def test_resized_gives_a_plain_spec_again() -> None:
    assert NET.resized({}) == NET
    assert NET.resized({"b1": 12}) == NET
    assert NET.resized(WIDTHS).resized({"b0": 8, "b2": 8}) == NET
    assert [g.size for g in NET.resized(WIDTHS).groups()] == [3, 12, 10]
    assert hash(NET.resized(WIDTHS)) == hash(NET.resized(dict(reversed(WIDTHS.items()))))


@pytest.mark.parametrize(
    ("widths", "says"),
    [
        ({"b7": 4}, "no channel group 'b7'; known: b0, b1, b2"),
        ({"b00": 4}, "did you mean 'b0'"),
        ({"b0": 0}, "'b0' cannot have 0 channels"),
        ({"b1": 4, "b0": -1}, "'b0' cannot have -1 channels"),
    ],
)
def test_what_cannot_be_resized(widths: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        NET.resized(widths)


def test_folding_trades_norms_for_biases() -> None:
    params, norm_stats = all_shapes(NET)
    folded, none = all_shapes(NET.folded())
    assert none == {}
    assert {p for p in folded if p.endswith("kernel")} == {p for p in params if p.endswith("kernel")}
    units = {p.removesuffix("/norm/mean") for p in norm_stats if p.endswith("/mean")}
    assert set(folded) - set(params) == {f"{unit}/bias" for unit in units}
    assert set(params) - set(folded) == {f"{unit}/norm/{v}" for unit in units for v in ("scale", "bias")}
    assert len(units) == 2 + 3 * len(NET.blocks)
    assert NET.folded().folded() == NET.folded()


@given(NETS)
def test_a_residual_is_a_site_exactly_where_shapes_allow_it(net: HandNet) -> None:
    width, adds = net.stem, []
    for i, block in enumerate(net.blocks):
        if block.stride == 1 and block.out == width:
            adds.append(f"b{i}/add")
        width = block.out
    sites = net.sites()
    assert [s for s in sites if s.endswith("/add")] == adds
    assert len(sites) == len(set(sites)) == 5 + 3 * len(net.blocks) - sum(b.fused for b in net.blocks) + len(adds)
    assert sites[:2] == ("image", "stem")
    assert sites[-3:] == ("neck", "flat", "head")
    assert net.folded().sites() == sites


def test_the_head_reads_the_whole_plane() -> None:
    params, _ = all_shapes(NET)
    assert params["head/kernel"] == (3 * 3 * 3, KEYPOINTS * 2)
    assert params["stem/kernel"] == (3, 3, 1, 4)
    assert params["b1/depthwise/kernel"] == (5, 5, 1, 12)


def test_a_fused_block_is_one_full_convolution_and_a_projection() -> None:
    params, _ = all_shapes(FUSED)
    assert params["b2/expand/kernel"] == (3, 3, 4, 8)
    assert params["b2/project/kernel"] == (1, 1, 8, 4)
    assert "b2/depthwise/kernel" not in params
    assert set(FUSED.sites()) == set(NET.sites()) - {"b0/depthwise", "b2/depthwise"}


def test_smoke_is_one_shape_for_all() -> None:
    small = NET.smoke()
    assert small == replace(NET, stem=99, size_px=640).smoke() == small.smoke()
    assert small.size_px == 32
    assert "b1/add" in small.sites()
    assert small.folded().smoke() == small.folded()
