"""Sharding over the two devices of the climate; what does not split is refused."""

import jax
import jax.numpy as jnp
import pytest

from research.train.mesh import check_batch, data_mesh, place, replicated, split_batch


def test_mesh_takes_the_first_devices_or_all() -> None:
    assert list(data_mesh().devices) == jax.devices()
    assert list(data_mesh(1).devices) == jax.devices()[:1]
    for devices in (3, -1):
        with pytest.raises(ValueError, match=f"{devices} devices asked for, 2 found"):
            data_mesh(devices)


def test_batches_split_and_the_rest_is_everywhere() -> None:
    mesh, x = data_mesh(2), jnp.arange(12.0).reshape(4, 3)
    halves = place({"x": x}, split_batch(mesh))["x"].addressable_shards
    assert [shard.data.tolist() for shard in halves] == [x[:2].tolist(), x[2:].tolist()]
    wholes = place({"x": x}, replicated(mesh))["x"].addressable_shards
    assert [shard.data.tolist() for shard in wholes] == [x.tolist()] * 2


def test_what_is_placed_may_be_donated_without_hurting_its_source() -> None:
    x = jnp.arange(4.0)
    copy = place(x, replicated(data_mesh(1)))
    jax.jit(lambda y: y + 1.0, donate_argnums=0)(copy).block_until_ready()
    assert copy.is_deleted()
    assert x.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_batch_that_does_not_split() -> None:
    check_batch(data_mesh(2), 8)
    check_batch(data_mesh(1), 7)
    with pytest.raises(ValueError, match=r"optim\.batch=7 does not split over 2 devices"):
        check_batch(data_mesh(2), 7)
