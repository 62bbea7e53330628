"""The tables of the skeleton agree with one another."""

import numpy as np

from research.hand.skeleton import (
    BEND_LIMITS_DEG,
    BENDS,
    BONE_MM,
    FINGERS,
    GROUPS,
    JOINTS,
    PARENTS,
)


def test_twenty_one_named_joints_and_a_parent_for_each():
    assert len(JOINTS) == len(set(JOINTS)) == len(PARENTS) == 21
    assert JOINTS[0] == "wrist"
    assert PARENTS[0] == -1
    assert all(0 <= parent < joint for joint, parent in enumerate(PARENTS) if joint)


def test_groups_are_the_fingers_from_base_to_tip():
    assert sorted(joint for group in GROUPS for joint in group) == list(range(1, 21))
    for finger, group in zip(FINGERS, GROUPS, strict=True):
        assert all(JOINTS[joint].startswith(finger) for joint in group)
        assert JOINTS[group[-1]] == f"{finger}_tip"
        assert [PARENTS[joint] for joint in group] == [0, *group[:-1]]


def test_bones_and_limits_cover_every_finger():
    bones, limits = np.asarray(BONE_MM), np.asarray(BEND_LIMITS_DEG)
    assert bones.shape == (5, 4)
    assert limits.shape == (5, len(BENDS), 2)
    assert (limits[..., 0] < limits[..., 1]).all()
    assert 170 < bones[2].sum() < 200  # a hand measures 17 to 20 cm, wrist to middle tip
    assert (bones[1:].sum(axis=1).argmax(), bones[1:].sum(axis=1).argmin()) == (1, 3)
