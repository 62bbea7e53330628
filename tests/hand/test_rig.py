"""The skinned hand: still at rest, rigid in its bones, smooth in its angles, the same as plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.hand.rig import (
    KEYPOINTS,
    NAMES,
    PARENTS,
    POSES,
    Rig,
    globals_of,
    keypoints_m,
    load_rig,
    mirrored,
    mirrored_rotations,
    recorded_poses,
    skin,
)
from research.hand.skeleton import PARENTS as KEYPOINT_PARENTS

RIG = load_rig()
REST = jnp.broadcast_to(jnp.eye(3), (25, 3, 3))


def turns(seed: int, size: float = 0.6) -> np.ndarray:
    """Random rotations [25,3,3], about a random axis each."""
    skewed = np.random.default_rng(seed).normal(scale=size, size=(25, 3, 3))
    u, _, vt = np.linalg.svd(np.eye(3) + skewed - skewed.transpose(0, 2, 1))
    out = u @ vt
    assert np.allclose(np.linalg.det(out), 1)
    return out.astype(np.float32)


def plain(rig: Rig, rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joint places and vertices by the definition, in float64, one joint and one vertex at a time."""
    bind, places = np.asarray(rig.bind, np.float64), []
    for joint, parent in enumerate(PARENTS):
        turn = np.eye(4)
        turn[:3, :3] = rotations[joint]
        if parent < 0:
            places.append(bind[joint] @ turn)
        else:
            places.append(places[parent] @ np.linalg.inv(bind[parent]) @ bind[joint] @ turn)
    moved = []
    for v in range(0, len(rig.vertices_m), 37):
        rest = np.append(np.asarray(rig.vertices_m[v], np.float64), 1)
        pulls = zip(rig.bones[v], rig.weights[v], strict=True)
        moved.append(sum(w * places[b] @ np.linalg.inv(bind[b]) @ rest for b, w in pulls)[:3])
    return np.stack(places), np.stack(moved)


def test_the_rig_is_sound() -> None:
    assert RIG.vertices_m.shape == (1360, 3)
    assert RIG.triangles.shape == (2314, 3)
    assert np.abs(RIG.weights.sum(axis=1) - 1).max() < 1e-6
    assert RIG.weights.min() >= 0
    assert RIG.bones.max() < 25
    assert set(RIG.triangles.ravel()) == set(range(1360))
    assert 0.20 < np.ptp(np.asarray(RIG.vertices_m), axis=0).max() < 0.22
    assert all(parent < joint for joint, parent in enumerate(PARENTS))
    assert [NAMES[k] for k in KEYPOINTS[:6]] == ["wrist", *NAMES[1:5], "index-finger-phalanx-proximal"]


def test_keypoints_follow_the_skeleton() -> None:
    """Walking up the rig from a keypoint, the first keypoint met is its parent in the 21-joint skeleton."""
    for number, joint in enumerate(KEYPOINTS[1:], 1):
        above = PARENTS[joint]
        while above not in KEYPOINTS:
            above = PARENTS[above]
        assert KEYPOINTS.index(above) == KEYPOINT_PARENTS[number]


def test_rest_is_rest() -> None:
    places = globals_of(RIG, REST)
    assert np.abs(places - RIG.bind).max() < 1e-6
    assert np.abs(skin(RIG, places) - RIG.vertices_m).max() < 1e-6


@given(seed=st.integers(0, 10**6))
def test_skinning_is_the_plain_loop(seed: int) -> None:
    rotations = turns(seed)
    places, vertices = plain(RIG, rotations)
    ours = globals_of(RIG, jnp.asarray(rotations))
    np.testing.assert_allclose(ours, places, atol=2e-6)
    np.testing.assert_allclose(skin(RIG, ours)[::37], vertices, atol=1e-6)


@given(seed=st.integers(0, 10**6))
def test_bones_keep_their_lengths(seed: int) -> None:
    def lengths(places: jax.Array) -> np.ndarray:
        at = np.asarray(places)[:, :3, 3]
        return np.linalg.norm(at[1:] - at[np.array(PARENTS[1:])], axis=1)

    np.testing.assert_allclose(
        lengths(globals_of(RIG, jnp.asarray(turns(seed)))), lengths(RIG.bind), atol=1e-6
    )


@given(seed=st.integers(0, 10**6))
def test_the_wrist_moves_the_hand_rigidly(seed: int) -> None:
    rotations = turns(seed)
    alone = np.array(REST)
    alone[0] = rotations[0]
    one = skin(RIG, globals_of(RIG, jnp.asarray(alone)))
    centre = RIG.bind[0, :3, 3]
    turn = RIG.bind[0, :3, :3] @ rotations[0] @ RIG.bind[0, :3, :3].T
    np.testing.assert_allclose(one, (RIG.vertices_m - centre) @ turn.T + centre, atol=1e-6)


def test_a_bend_about_minus_x_curls_towards_the_palm() -> None:
    """All fingers bent: every tip comes nearer to the wrist, and a fist is what that looks like."""
    c, s = np.cos(-1.2), np.sin(-1.2)
    bent = np.array(REST)
    for joint, name in enumerate(NAMES):
        if "phalanx" in name and "thumb" not in name:
            bent[joint] = [[1, 0, 0], [0, c, -s], [0, s, c]]
    tips = [
        KEYPOINTS.index(i) for i, name in enumerate(NAMES) if name.endswith("tip") and "thumb" not in name
    ]

    def reach(rotations: np.ndarray) -> np.ndarray:
        points = np.asarray(keypoints_m(globals_of(RIG, jnp.asarray(rotations))))
        return np.linalg.norm(points[tips] - points[0], axis=1)

    poses = recorded_poses()
    fist = reach(poses[POSES.index("fist")])
    flat = reach(poses[POSES.index("flat")])
    assert (reach(bent) < 0.7 * reach(np.array(REST))).all()
    assert (fist < 0.7 * flat).all()


def test_recorded_poses_are_rotations() -> None:
    poses = recorded_poses().astype(np.float64)
    assert poses.shape == (len(POSES), 25, 3, 3)
    np.testing.assert_allclose(
        poses @ poses.swapaxes(2, 3), np.broadcast_to(np.eye(3), poses.shape), atol=1e-5
    )
    np.testing.assert_allclose(np.linalg.det(poses), 1, atol=1e-5)
    np.testing.assert_allclose(poses[:, 0], np.broadcast_to(np.eye(3), (len(POSES), 3, 3)), atol=1e-6)
    for i in range(len(POSES)):
        for j in range(i):
            assert np.abs(poses[i] - poses[j]).max() > 0.1


@given(seed=st.integers(0, 10**6))
def test_the_left_hand_is_the_mirror_image(seed: int) -> None:
    rotations = jnp.asarray(turns(seed))
    left = mirrored(RIG)
    flip = np.array([-1.0, 1.0, 1.0])
    moved = skin(left, globals_of(left, mirrored_rotations(rotations)))
    np.testing.assert_allclose(moved, np.asarray(skin(RIG, globals_of(RIG, rotations))) * flip, atol=1e-6)


def volume(rig: Rig) -> float:
    """Signed volume of the mesh seen from its middle; the wrist is open, but hardly."""
    a, b, c = np.asarray(rig.vertices_m - rig.vertices_m.mean(axis=0))[np.asarray(rig.triangles)].swapaxes(
        0, 1
    )
    return float((np.cross(a, b) * c).sum() / 6)


def test_triangles_look_outwards_on_both_hands() -> None:
    assert 1e-4 < volume(RIG) < 6e-4  # m^3
    assert volume(mirrored(RIG)) == pytest.approx(volume(RIG), rel=1e-5)


def test_gradients_are_central_differences() -> None:
    rotations, away = jnp.asarray(turns(5)), jnp.asarray(turns(6)[:, 0])
    target = np.random.default_rng(0).normal(scale=0.1, size=(1360, 3))

    def loss(x: jax.Array) -> jax.Array:
        turned = jnp.einsum("jab,jbc->jac", rotations, jax.scipy.linalg.expm(_skew(x)), precision="highest")
        return jnp.mean((skin(RIG, globals_of(RIG, turned)) - target) ** 2)

    with jax.enable_x64(True):
        zero = jnp.zeros((25, 3), jnp.float64)
        slope = jax.grad(loss)(zero)
        assert np.isfinite(slope).all()
        way = np.asarray(away, np.float64)
        step = 1e-4
        measured = (loss(zero + step * way) - loss(zero - step * way)) / (2 * step)
        assert float((slope * way).sum()) == pytest.approx(float(measured), rel=1e-4)
        assert abs(float(measured)) > 1e-6


def _skew(x: jax.Array) -> jax.Array:
    a, b, c = x[:, 0], x[:, 1], x[:, 2]
    zero = jnp.zeros_like(a)
    rows = ((zero, -c, b), (c, zero, -a), (-b, a, zero))
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def test_a_wrong_number_of_joints_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rotations must be \[25, 3, 3\], got \[21, 3, 3\]"):
        globals_of(RIG, REST[:21])
