"""The z-buffer against casting a ray through every pixel, on random meshes and on posed hands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data.raster import MOST_TRIANGLES, apart, rasterise
from research.hand.rig import globals_of, load_rig, recorded_poses, skin

RIG = load_rig()
TRIANGLES = jnp.asarray(RIG.triangles.astype(np.int32))
DISTANCE_M = 0.45
draw = jax.jit(rasterise, static_argnames="size_px")


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
    """Nearest depth, and one grey a triangle tells which one was met; most are wider than the plan's boxes."""
    points, triangles = soup(seed, 60, size_px, size_px / 2)
    greys = np.repeat((np.arange(60) + 1) / 61, 3).astype(np.float32)
    found = draw(jnp.asarray(points), jnp.asarray(triangles), jnp.asarray(greys), size_px)
    number, depth, sure = cast(points, triangles, size_px)
    assert sure.mean() > 0.8
    met = np.where(np.isinf(found.depth), -1, np.round(np.asarray(found.grey) * 61) - 1)
    np.testing.assert_array_equal(met[sure], number[sure])
    np.testing.assert_allclose(np.asarray(found.depth)[sure], depth[sure], rtol=1e-4)


@pytest.mark.parametrize("pose", [0, 5])
def test_a_hand_is_what_rays_meet(pose: int) -> None:
    points = hand(pose, pose, 32)
    found = draw(jnp.asarray(points), TRIANGLES, jnp.ones(len(points)), 32)
    number, depth, sure = cast(points, np.asarray(TRIANGLES), 32)
    assert (number >= 0).mean() > 0.05
    same = np.isfinite(found.depth) == (number >= 0)
    assert same[sure].mean() > 0.999
    np.testing.assert_allclose(np.asarray(found.depth)[sure & same], depth[sure & same], rtol=1e-4)


def test_brightness_is_linear_in_the_picture() -> None:
    """A square of two triangles whose grey is the place in x, however deep its corners lie."""
    points = jnp.asarray([[0, 0, 1.0], [16, 0, 2.0], [16, 16, 3.0], [0, 16, 1.5]])
    triangles = jnp.asarray([[0, 2, 1], [0, 3, 2]])
    for faces in (triangles, triangles[:, ::-1]):
        found = draw(points, faces, points[:, 0] / 16, 16)
        if np.isfinite(found.depth).any():
            across = (np.arange(16) + 0.5) / 16
            np.testing.assert_allclose(found.grey, np.broadcast_to(across, (16, 16)), atol=3e-4)
            seen = True
    assert seen


def test_faces_that_look_away_are_not_drawn() -> None:
    points = jnp.asarray(soup(1, 20, 16, 8)[0])
    triangles = jnp.arange(60).reshape(-1, 3)
    one, other = (draw(points, t, jnp.ones(60), 16).depth for t in (triangles, triangles[:, ::-1]))
    assert np.isfinite(one).any()
    assert np.isfinite(other).any()
    both = draw(points, jnp.concatenate([triangles, triangles[:, ::-1]]), jnp.ones(60), 16).depth
    np.testing.assert_allclose(both, jnp.minimum(one, other), rtol=1e-5)


def test_apart_changes_nothing() -> None:
    x = jnp.asarray([np.nan, 1.0, 2.0])[1:]
    np.testing.assert_array_equal(jax.jit(lambda x: apart(lambda a, b: (a * 2, b), x, x + 1))(x)[0], x * 2)


def test_too_many_triangles_are_refused() -> None:
    with pytest.raises(ValueError, match=f"at most {MOST_TRIANGLES} can be drawn"):
        rasterise(jnp.zeros((3, 3)), jnp.zeros((MOST_TRIANGLES + 1, 3), jnp.int32), jnp.zeros(3), 16)


def every(points: np.ndarray, triangles: np.ndarray, greys: np.ndarray, size_px: int, *, pixels: bool):
    found = jax.jit(rasterise, static_argnums=(3, 4))(points, triangles, greys, size_px, pixels)
    return jax.device_get(found)


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), of_hand=st.booleans())
def test_every_pixel_tested_gives_the_picture_of_the_boxes(seed: int, of_hand: bool) -> None:
    """But for samples on an edge, of which rounding decides, and steps of nearness."""
    points, triangles = (hand(seed % 10, seed, 33), np.asarray(TRIANGLES)) if of_hand else soup(seed, 40, 33, 12)
    greys = np.random.default_rng(seed).uniform(0.1, 0.9, len(points)).astype(np.float32)
    boxes, pixels = (every(points, triangles, greys, 33, pixels=way) for way in (False, True))
    assert np.isfinite(boxes.depth).any()
    same = np.isclose(boxes.depth, pixels.depth, rtol=1e-4) & np.isclose(boxes.grey, pixels.grey, atol=2e-3)
    assert same.mean() > 0.995


def test_accelerators_get_no_scatter_and_no_loop() -> None:
    points, triangles = soup(0, 40, 32, 8)
    grey = np.ones(120, np.float32)
    traced = jax.jit(rasterise, static_argnames="size_px").trace(points, triangles, grey, size_px=32)
    texts = {name: traced.lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "tpu", "cuda")}
    buffer = f"tensor<{32 * 32 + 40}xi32>"  # of pixels and places for tests that hit none
    assert {name: (buffer in text, "stablehlo.while" in text) for name, text in texts.items()} == {
        "cpu": (True, True),
        "tpu": (False, False),
        "cuda": (False, False),
    }
