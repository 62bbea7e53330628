"""The posed skin is the rig's, the arm starts inside the wrist, and a person's proportions move joints and skin."""

import jax
import jax.numpy as jnp
import numpy as np

from research.hand.rig import load_rig, recorded_poses, skin
from research.hand.surface import Arm, keypoints_mm, places_mm, pose_surface, surface

STILL = Arm(jnp.eye(3), jnp.asarray(60.0), jnp.asarray(1.0))
ONES = jnp.ones((25, 3))


def posed(pose: int, stretch: jax.Array = ONES, arm: Arm = STILL) -> tuple[np.ndarray, ...]:
    places = places_mm(jnp.asarray(recorded_poses()[pose]), stretch)
    return (np.asarray(keypoints_mm(places)), *map(np.asarray, pose_surface(places, stretch, arm)))


def test_an_average_hand_is_the_rigs() -> None:
    places = places_mm(jnp.asarray(recorded_poses()[0]), ONES)
    wanted = 1000 * skin(load_rig(), places.at[:, :3, 3].divide(1000))
    np.testing.assert_allclose(posed(0)[1][:1360], wanted, atol=1e-3)


def test_normals_are_unit_and_look_outwards() -> None:
    _, points, normals, _ = posed(1)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-4)
    corners = points[surface().triangles]
    face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    agree = (face * normals[surface().triangles].mean(axis=1)).sum(axis=1) > 0
    assert agree.mean() > 0.97  # hand and tube


def test_longer_fingers_have_longer_bones() -> None:
    long = ONES.at[5:10, 2].set(1.1)
    plain, longer = posed(1)[0], posed(1, long)[0]
    bones = [np.linalg.norm(p[6:9] - p[5:8], axis=1) for p in (plain, longer)]
    np.testing.assert_allclose(bones[1], 1.1 * bones[0], rtol=1e-4)
    np.testing.assert_allclose(longer[9:], plain[9:], atol=1e-3)


def test_the_arm_starts_inside_the_wrist_and_a_sleeve_is_wider() -> None:
    _, points, _, cloth = posed(1)
    hand, tube = points[:1360], points[1360:].reshape(7, 14, 3)
    low, high = hand.min(axis=0), hand.max(axis=0)
    assert ((tube[0] > low) & (tube[0] < high)).all()
    assert cloth.max() == 0
    _, dressed, _, cloth = posed(1, arm=Arm(jnp.eye(3), jnp.asarray(60.0), jnp.asarray(1.3)))
    wide = [np.ptp(rings[4:, :, ::2], axis=1) for rings in (dressed[1360:].reshape(7, 14, 3), tube)]
    np.testing.assert_allclose(wide[0], 1.3 * wide[1], rtol=0.01)
    assert cloth[1360:].reshape(7, 14)[4:].min() == 1


def test_maps_lie_where_they_should() -> None:
    held = surface()
    index = held.rest_mm[held.weights[:, 9] + held.weights[:, 8] > 0.9]
    nails = held.rest_mm[held.nail > 0.5]
    assert len(nails) >= 10
    assert nails[:, 0].mean() > held.rest_mm[:, 0].mean()  # on the back, +x of the rig
    assert len(index) > 20
    for name in ("palmar", "nail", "crease", "knuckle"):
        values = getattr(held, name)
        assert values.shape == (1360,)
        assert values.min() >= 0
        assert 0.3 < values.max() <= 1
    assert held.near.any(axis=0).all()
