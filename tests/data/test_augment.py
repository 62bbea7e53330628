"""Augmentation moves a picture and its keypoints by one map, and nothing where nothing may vary."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from research.data.augment import Augment, framed, lit, sample, varied

STILL = Augment((0.6, 0.6), 0.0, 0.0, 0.0, 0.0, 0.0)
SIZE = 48


def hand(seed: int = 0) -> np.ndarray:
    """Keypoints [21,2] whose box is 0.6 of the crop, in its middle."""
    points = np.random.default_rng(seed).uniform(size=(21, 2))
    points = (points - points.min(0)) / np.ptp(points, axis=0)
    return (0.2 + 0.6 * points).astype(np.float32)


def dots(points: np.ndarray, side: int, radius: float) -> np.ndarray:
    """A black picture with a soft bright dot at each point."""
    at = (np.arange(side) + 0.5) / side
    apart = [(at[None, :] - x) ** 2 + (at[:, None] - y) ** 2 for x, y in points]
    return np.round(255 * np.exp(-0.5 * np.array(apart) / radius**2).sum(0).clip(0, 1)).astype(np.uint8)


def draw(
    spec: Augment, picture: np.ndarray, points: np.ndarray, count: int = 12
) -> tuple[np.ndarray, np.ndarray]:
    keys = jax.random.split(jax.random.key(3), count)
    one = jax.jit(jax.vmap(lambda key: varied(spec, SIZE, jnp.asarray(picture), jnp.asarray(points), key)))
    drawn = one(keys)
    return np.asarray(drawn["image"]), np.asarray(drawn["keypoints"])


def test_what_may_not_vary_stays() -> None:
    points = hand()
    picture = dots(points, SIZE, 0.03)
    images, moved = draw(STILL, picture, points)
    np.testing.assert_allclose(images[0], picture / 255.0, atol=2e-3)
    np.testing.assert_allclose(moved[0], points, atol=1e-5)
    assert (images == images[:1]).all()


def test_a_dot_is_where_its_keypoint_says() -> None:
    points = hand(1)
    picture = dots(points[8:9], 96, 0.02)
    spec = Augment((0.5, 0.7), 0.04, 180.0, 0.5, 0.0, 0.0)
    images, moved = draw(spec, picture, points, 24)
    checked = 0
    for image, where in zip(images, moved[:, 8], strict=True):
        if not 0.1 < where.min() < where.max() < 0.9:
            continue
        checked += 1
        rows, columns = np.indices(image.shape)
        image = np.where(image > 0.02, image, 0.0)
        centre = [np.sum((at + 0.5) * image) / image.sum() / SIZE for at in (columns, rows)]
        np.testing.assert_allclose(centre, where, atol=0.4 / SIZE)
    assert checked > 12


def test_shapes_are_kept_mirrored_or_not() -> None:
    points = hand(2)
    _, moved = draw(Augment((0.5, 0.8), 0.05, 60.0, 0.5), dots(points, 64, 0.02), points, 40)

    def area(p: np.ndarray) -> np.ndarray:  # signed: changes sign with a mirror
        a, b = p[..., 5, :] - p[..., 0, :], p[..., 17, :] - p[..., 0, :]
        return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]

    signs = np.sign(area(moved)) * np.sign(area(points))
    assert {-1.0, 1.0} == set(signs.tolist())
    lengths = np.linalg.norm(moved - moved[:, :1], axis=2) / np.linalg.norm(points - points[:1], axis=1).clip(
        1e-9
    )
    ratio = lengths[:, 1:] / lengths[:, 1:2]
    np.testing.assert_allclose(ratio, 1.0, rtol=1e-4)
    for share, sign in ((0.0, 1.0), (1.0, -1.0)):
        _, moved = draw(replace(STILL, mirror=share), dots(points, 64, 0.02), points)
        assert (np.sign(area(moved)) * np.sign(area(points)) == sign).all()


def test_the_box_fills_what_it_should() -> None:
    points = hand(3)
    _, moved = draw(replace(STILL, fill=(0.3, 0.9)), dots(points, 64, 0.02), points, 64)
    fills = np.ptp(moved, axis=1).max(axis=1)
    assert 0.3 <= fills.min() < 0.4
    assert 0.8 < fills.max() <= 0.9 + 1e-5


def test_light_and_noise_vary_brightness_alone() -> None:
    points = hand(4)
    picture = np.full((64, 64), 128, np.uint8)
    images, moved = draw(replace(STILL, light=1.0, noise=0.1), picture, points, 32)
    np.testing.assert_allclose(moved, np.broadcast_to(points, moved.shape), atol=1e-5)
    assert images.mean(axis=(1, 2)).std() > 0.03
    assert images.min() >= 0
    assert images.max() <= 1
    plain = np.asarray(lit(jnp.full((8, 8), 0.5), jnp.full((5,), 0.5), 1.0))
    np.testing.assert_allclose(plain, 0.5, atol=1e-6)


def test_sampling_is_bilinear_and_goes_on_at_edges() -> None:
    picture = jnp.asarray([[0.0, 1.0], [2.0, 3.0]])
    x, y = jnp.asarray([0.0, 1.0, 0.5, -4.0, 9.0]), jnp.asarray([0.0, 1.0, 0.5, 0.0, 9.0])
    np.testing.assert_allclose(sample(picture, x, y), [0.0, 3.0, 1.5, 0.0, 3.0])


def test_draws_differ_and_repeat() -> None:
    points = hand()
    picture = dots(points, 64, 0.02)
    one, two = (draw(Augment(), picture, points, 4)[0] for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert all((one[i] != one[j]).any() for i in range(4) for j in range(i))


def test_crops_that_leave_their_picture_are_blank_from_its_edges_on() -> None:
    picture = np.full((SIZE, SIZE), 128, np.uint8)
    images, moved = draw(replace(STILL, framed=1.0), picture, hand(), 200)
    np.testing.assert_allclose(moved, np.broadcast_to(hand(), moved.shape), atol=1e-5)
    blanked = 0
    for image in images:
        inside = np.abs(image - 128 / 255) < 1e-3
        rows, columns = inside.any(1), inside.any(0)
        assert (inside == np.outer(rows, columns)).all()  # a rectangle
        assert inside[SIZE // 3 : -(SIZE // 3), SIZE // 3 : -(SIZE // 3)].all()
        blank = image[~inside]
        assert blank.size == 0 or np.ptp(blank) == 0
        blanked += blank.size > 0
    assert 0.6 < np.mean([(image == 0).any() for image in images]) < 0.8
    assert blanked > 180
    assert (draw(STILL, picture, hand(), 50)[0] > 0.4).all()


def test_a_side_is_blank_as_deep_as_its_number_says() -> None:
    u = jnp.asarray([0.5, 0.5, 0.5, 0.5, 0.1, 0.9, 0.9, 0.9, 0.0, 0.5])
    image = np.asarray(framed(jnp.ones((SIZE, SIZE)), u))
    deep = np.sum((np.arange(SIZE) + 0.5) / SIZE <= 0.165)
    assert (image[:, :deep] == 0).all()
    assert (image[:, deep:] == 1).all()
