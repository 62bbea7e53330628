"""The z-buffer against casting a ray through every pixel, on random meshes and on posed hands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data.raster import (
    MOST_TRIANGLES,
    Raster,
    hand_plan,
    interpolate,
    rasterise,
    vertex_normals,
)
from research.hand.rig import globals_of, load_rig, recorded_poses, skin

RIG = load_rig()
TRIANGLES = jnp.asarray(RIG.triangles.astype(np.int32))
DISTANCE_M = 0.45
draw = jax.jit(rasterise, static_argnames=("size_px", "plan"))


def turn(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return np.asarray(q * np.sign(np.linalg.det(q)), np.float32)


def hand(pose: int, seed: int, size_px: int) -> np.ndarray:
    """A posed hand seen from a random side: [V,3], px and m."""
    vertices = np.asarray(skin(RIG, globals_of(RIG, jnp.asarray(recorded_poses()[pose]))))
    x, y, z = ((vertices - vertices.mean(axis=0)) @ turn(seed).T + [0, 0, DISTANCE_M]).T
    focal_px = 1.9 * size_px
    return np.stack([focal_px * x / z + size_px / 2, focal_px * y / z + size_px / 2, z], 1).astype(np.float32)


def soup(seed: int, count: int, size_px: int, largest_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Separate random triangles, in front of and behind each other, some outside the picture, half facing away."""
    rng = np.random.default_rng(seed)
    middle = rng.uniform(-2, size_px + 2, (count, 1, 2))
    corners = middle + rng.uniform(-largest_px / 2, largest_px / 2, (count, 3, 2))
    depth = rng.uniform(0.3, 0.9, (count, 3, 1))
    points = np.concatenate([corners, depth], axis=2).reshape(-1, 3).astype(np.float32)
    return points, np.arange(3 * count, dtype=np.int32).reshape(-1, 3)


def cast(
    points: np.ndarray, triangles: np.ndarray, size_px: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By rays, in float64: the nearest front face [S,S] (-1: none), its depth, and whether that is beyond doubt."""
    corners = points.astype(np.float64)[triangles]
    middle = np.arange(size_px) + 0.5
    x, y = (part[..., None] for part in np.meshgrid(middle, middle))
    a, b, c = (corners[:, i] for i in range(3))
    double = (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1]) - (c[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0])

    def opposite(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return (q[:, 0] - x) * (p[:, 1] - y) - (q[:, 1] - y) * (p[:, 0] - x)

    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.stack([opposite(b, c), opposite(c, a), opposite(a, b)], -1) / double[:, None]
        depth = 1 / (parts / corners[:, :, 2]).sum(-1)
    edge = parts.min(-1)
    hit = (double > 0) & (edge >= 0)
    depth = np.where(hit, depth, np.inf)
    near = np.sort(depth, axis=-1)
    at_an_edge = ((double > 0) & (np.abs(edge) < 1e-3)).any(-1)
    close = np.isfinite(near[..., 1]) & (near[..., 1] < near[..., 0] + 1e-5)
    return np.where(hit.any(-1), depth.argmin(-1), -1), near[..., 0], ~(at_an_edge | close)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), size_px=st.sampled_from([16, 33]))
def test_a_soup_of_triangles_is_what_rays_meet(seed: int, size_px: int) -> None:
    points, triangles = soup(seed, 60, size_px, size_px / 2)
    found = draw(jnp.asarray(points), jnp.asarray(triangles), size_px, ((60, size_px),))
    number, depth, sure = cast(points, triangles, size_px)
    assert sure.mean() > 0.8
    assert found.lost == 0
    np.testing.assert_array_equal(np.asarray(found.triangle)[sure], number[sure])
    np.testing.assert_allclose(np.asarray(found.depth)[sure], depth[sure], rtol=1e-4)


@pytest.mark.parametrize("pose", [0, 5])
def test_a_hand_is_what_rays_meet(pose: int) -> None:
    points = hand(pose, pose, 32)
    found = draw(jnp.asarray(points), TRIANGLES, 32, hand_plan(32))
    number, depth, sure = cast(points, np.asarray(TRIANGLES), 32)
    assert found.lost == 0
    assert (number >= 0).mean() > 0.05
    same = np.asarray(found.triangle) == number
    assert same[sure].mean() > 0.999
    np.testing.assert_allclose(np.asarray(found.depth)[sure & same], depth[sure & same], rtol=1e-4)


@pytest.mark.parametrize("size_px", [64, 96, 128])
def test_the_hands_plan_has_room(size_px: int) -> None:
    posed = jnp.stack([hand(i % 10, i, size_px) for i in range(10)])
    lost = jax.lax.map(lambda p: draw(p, TRIANGLES, size_px, hand_plan(size_px)).lost, posed)
    np.testing.assert_array_equal(lost, 0)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6))
def test_weights_find_the_place_again(seed: int) -> None:
    """The corners' camera coordinates, weighted, project to the pixel's centre at its depth."""
    points, triangles = soup(seed, 30, 24, 16)
    space = np.concatenate([points[:, :2] * points[:, 2:], points[:, 2:]], axis=1)
    found = draw(jnp.asarray(points), jnp.asarray(triangles), 24, ((30, 24),))
    met = np.asarray(interpolate(found, jnp.asarray(triangles), jnp.asarray(space)))
    rows, columns = np.nonzero(np.asarray(found.triangle) >= 0)
    place = met[rows, columns]
    np.testing.assert_allclose(place[:, 2], np.asarray(found.depth)[rows, columns], rtol=1e-4)
    centres = np.stack([columns, rows], axis=1) + 0.5
    np.testing.assert_allclose(place[:, :2] / place[:, 2:], centres, atol=2e-3)
    assert (met[np.asarray(found.triangle) < 0] == 0).all()
    assert np.isinf(np.asarray(found.depth)[np.asarray(found.triangle) < 0]).all()


def coverage(found: Raster) -> int:
    return int((found.triangle >= 0).sum())


def test_what_finds_no_box_is_counted() -> None:
    points, triangles = soup(3, 40, 24, 8)
    everything = draw(jnp.asarray(points), jnp.asarray(triangles), 24, ((40, 24),))
    tight = draw(jnp.asarray(points), jnp.asarray(triangles), 24, ((5, 24),))
    narrow = draw(jnp.asarray(points), jnp.asarray(triangles), 24, ((40, 2),))
    assert everything.lost == 0
    assert tight.lost > 0
    assert narrow.lost > 0
    assert coverage(tight) < coverage(everything)
    spilt = draw(jnp.asarray(points), jnp.asarray(triangles), 24, ((1, 4), (39, 24)))
    np.testing.assert_array_equal(spilt.triangle, everything.triangle)


def test_normals_of_a_ball_point_outwards() -> None:
    """The rig's triangles, its vertices pulled onto a sphere about the wrist's middle, keep looking outwards."""
    normals = np.asarray(vertex_normals(jnp.asarray(RIG.vertices_m), TRIANGLES))
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-4)
    grown = np.asarray(RIG.vertices_m) + 1e-3 * normals

    def volume(vertices: np.ndarray) -> float:
        a, b, c = (vertices - np.asarray(RIG.vertices_m).mean(axis=0))[np.asarray(TRIANGLES)].swapaxes(0, 1)
        return float((np.cross(a, b) * c).sum() / 6)

    assert volume(grown) > 1.05 * volume(np.asarray(RIG.vertices_m))


def test_bad_plans_and_meshes_are_refused() -> None:
    points, triangles = soup(0, 4, 16, 8)
    with pytest.raises(ValueError, match="boxes of a plan must not shrink"):
        rasterise(jnp.asarray(points), jnp.asarray(triangles), 16, ((2, 8), (2, 7)))
    with pytest.raises(ValueError, match=f"at most {MOST_TRIANGLES} can be drawn"):
        rasterise(jnp.asarray(points), jnp.zeros((MOST_TRIANGLES + 1, 3), jnp.int32), 16, hand_plan(16))
