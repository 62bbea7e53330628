"""Which networks a table needs, and which stages they share."""

import dataclasses as dc

import pytest

from research.spec import Stage, Track, named
from research.train.arms import Arm, all_arms, cumulative, full, row_order, stage_key, stage_links, without
from tests.experiments import EXPERIMENT, NET

LINKS = named(**{name: EXPERIMENT.squeeze[name] for name in ("gates", "sparse", "distill")})
EXP = dc.replace(EXPERIMENT, squeeze=LINKS, rows=("sparse", "distill", "gates"))


def names(arms: tuple[Arm, ...]) -> list[str]:
    return [arm.name for arm in arms]


def test_rows_add_one_link_each_in_the_order_of_rows_and_chain_in_the_order_of_squeeze() -> None:
    assert row_order(EXP) == ("sparse", "distill", "gates")
    assert names(cumulative(EXP)) == ["v2", "v2+sparse", "v2+sparse+distill", "v2+gates+sparse+distill"]
    assert row_order(dc.replace(EXP, rows=())) == LINKS.names
    assert names(cumulative(dc.replace(EXP, rows=()))) == [
        "v2",
        "v2+gates",
        "v2+gates+sparse",
        full(EXP).name,
    ]


def test_every_arm_once_and_a_teacher_before_its_students() -> None:
    found = names(all_arms(EXP))
    assert found[:2] == ["v1", "teacher"]
    assert sorted(found[2:]) == sorted(
        [
            "v2",
            "v2+sparse",
            "v2+sparse+distill",
            "v2+gates+sparse+distill",
            "v2+gates+distill",
            "v2+gates+sparse",
        ]
    )


def test_an_experiment_without_links_or_teacher_has_two_arms() -> None:
    tracks = named(v1=EXP.tracks["v1"], v2=Track(NET, (Stage("dense", 3),)))
    bare = dc.replace(EXP, tracks=tracks, squeeze=named(), rows=(), claims=named())
    assert names(all_arms(bare)) == ["v1", "v2"]
    assert full(bare) == Arm("v2")


def test_without_leaves_out_exactly_one() -> None:
    for link in LINKS.names:
        assert set(full(EXP).links) - set(without(EXP, link).links) == {link}
    with pytest.raises(KeyError, match="sparse"):
        without(EXP, "sparce")


def test_stages_are_shared_exactly_where_their_past_is_the_same() -> None:
    stages = range(3)
    keys = {arm.name: [stage_key(EXP, arm, i) for i in stages] for arm in all_arms(EXP) if arm.track == "v2"}
    assert {key[0] for key in keys.values()} == {"v2.0-dense"}  # no link yet: one dense stage for all
    assert len({key[1] for key in keys.values()}) == len(keys)
    assert keys["v2+gates+sparse"][2] == "v2+gates+sparse.2-finish"  # gates are settled, and still its past
    assert stage_key(EXP, Arm("teacher"), 0) == "teacher.0-dense"


def test_a_stage_trains_with_what_both_it_and_the_arm_name() -> None:
    assert stage_links(EXP, full(EXP), 0).names == ()
    assert stage_links(EXP, full(EXP), 1).names == ("gates", "sparse", "distill")
    assert stage_links(EXP, full(EXP), 2).names == ("sparse", "distill")
    assert stage_links(EXP, without(EXP, "sparse"), 1).names == ("gates", "distill")
