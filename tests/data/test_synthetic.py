"""Batches are pure functions of (spec, seed, step), bit for bit, and the test stream is another one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.data.synthetic import (
    TEST_STREAM,
    RenderedHands,
    batch_at,
    example_at,
    examples_at,
    examples_together,
)

SPEC = RenderedHands(size_px=32, test_images=8)
BATCH = 6


@pytest.fixture(scope="module")
def batch():
    return jax.device_get(batch_at(SPEC, 7, 3, BATCH))


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in ("image", "keypoints"))


def test_shapes_ranges_and_variety(batch):
    assert batch["image"].shape == (BATCH, 32, 32)
    assert batch["keypoints"].shape == (BATCH, 21, 2)
    assert batch["image"].dtype == batch["keypoints"].dtype == np.float32
    assert batch["image"].min() >= 0
    assert batch["image"].max() <= 1
    assert (batch["image"].std(axis=(1, 2)) > 0.01).all()
    assert len({image.tobytes() for image in batch["image"]}) == BATCH


def test_a_batch_is_a_function_of_seed_and_step_only(batch):
    assert same(batch, batch_at(SPEC, jnp.asarray(7), jnp.asarray(3), BATCH))
    assert not same(batch, batch_at(SPEC, 8, 3, BATCH))
    assert not same(batch, batch_at(SPEC, 7, 4, BATCH))


def test_an_example_alone_equals_its_place_in_the_batch_bit_for_bit(batch):
    for i in (0, BATCH - 1):
        alone = example_at(SPEC, 7, 3 * BATCH + i)
        assert same(alone, {name: part[i] for name, part in batch.items()})


def test_the_batch_size_does_not_change_an_example(batch):
    large = jax.device_get(batch_at(SPEC, 7, 0, 40))
    small = batch_at(SPEC, 7, 1, 20)
    assert same({name: part[20:] for name, part in large.items()}, small)
    first = 3 * BATCH
    assert same({name: part[first : first + BATCH] for name, part in large.items()}, batch)


def test_inside_a_callers_jit_the_bits_are_the_same(batch):
    outside = jax.jit(lambda seed, step: batch_at(SPEC, seed, step, BATCH))(7, 3)
    assert same(batch, outside)


def test_train_and_test_streams_share_no_example():
    indices = jnp.arange(30)
    train, test = examples_at(SPEC, 7, indices), examples_at(SPEC, 7, indices, TEST_STREAM)
    seen = {image.tobytes() for image in np.asarray(train["image"])}
    assert len(seen) == 30
    assert not seen & {image.tobytes() for image in np.asarray(test["image"])}
    labels = {points.tobytes() for points in np.asarray(train["keypoints"])}
    assert not labels & {points.tobytes() for points in np.asarray(test["keypoints"])}


def test_the_hand_is_drawn_at_its_keypoints():
    """The pixels at a hand's joints are more alike than those at the same places of another image."""
    images, keypoints = jax.device_get(tuple(examples_at(SPEC, 1, jnp.arange(30)).values()))
    shifted = np.roll(images, 1, axis=0)
    at = np.clip((keypoints * 32).astype(int), 0, 31)
    rows = np.arange(30)[:, None]
    own = images[rows, at[..., 1], at[..., 0]].std(axis=1)
    other = shifted[rows, at[..., 1], at[..., 0]].std(axis=1)
    assert np.median(own) < np.median(other)


def test_drawn_in_one_go_the_examples_are_the_same_to_rounding(batch):
    first = 3 * BATCH
    together = jax.jit(lambda seed, at: examples_together(SPEC, seed, at))(7, first + jnp.arange(BATCH))
    np.testing.assert_allclose(together["keypoints"], batch["keypoints"], atol=1e-5)
    apart = np.abs(np.asarray(together["image"]) - np.asarray(batch["image"]))
    assert np.mean(apart > 1e-5) < 1e-3  # a sample on a triangle's edge may fall to the other side
    assert apart.max() < 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RenderedHands(size_px=8), "size_px must be at least 16, got 8"),
        (lambda: RenderedHands(test_images=0), "test_images must be at least 1, got 0"),
        (lambda: batch_at(SPEC, 0, 0, 0), "batch must be at least 1, got 0"),
        (lambda: batch_at(SPEC, -1, 0, 4), "seed must lie in 0"),
        (lambda: examples_at(SPEC, 0, jnp.zeros((0,), jnp.uint32)), "at least one index"),
        (lambda: examples_at(SPEC, 0, jnp.zeros((2, 2), jnp.uint32)), r"got shape \[2, 2\]"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
