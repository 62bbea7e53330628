"""Sharding over the two devices of the climate; what does not split is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from research.train.mesh import (
    check_batch,
    data_mesh,
    own_rows,
    place,
    place_rows,
    replicated,
    split_batch,
    split_everywhere,
    split_wide,
)


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


def test_groups_of_devices_are_a_second_axis() -> None:
    mesh = data_mesh(2, model=2)
    assert dict(mesh.shape) == {"data": 1, "model": 2}
    check_batch(mesh, 7)  # one group: the whole batch
    for model in (0, 3):
        with pytest.raises(ValueError, match=f"groups of {model}"):
            data_mesh(2, model)
    every = place(jnp.arange(2.0).reshape(1, 2), split_everywhere(mesh))
    assert [shard.data.tolist() for shard in every.addressable_shards] == [[[0.0]], [[1.0]]]


def test_wide_kernels_are_split_by_output_channels() -> None:
    tree = {
        "wide": jnp.ones((3, 8)),
        "narrow": jnp.ones((3, 4)),
        "odd": jnp.ones((2, 9)),
        "bias": jnp.ones(8),
    }
    lies = split_wide(data_mesh(2, model=2), tree, wide=8)
    assert lies["wide"].spec == PartitionSpec(None, "model")
    assert all(lies[name].is_fully_replicated for name in ("narrow", "odd", "bias"))
    assert place(tree, lies)["wide"].addressable_shards[0].data.shape == (3, 4)
    assert all(lie.is_fully_replicated for lie in split_wide(data_mesh(2), tree, wide=8).values())


def test_a_process_places_its_own_rows() -> None:
    mesh, x = data_mesh(2), np.arange(12.0).reshape(4, 3)
    rows = own_rows(mesh, 4)
    assert rows.tolist() == [0, 1, 2, 3]  # this process has all devices
    batch = place_rows({"x": x[rows]}, rows, mesh, 4)["x"]
    assert batch.sharding == split_batch(mesh)
    np.testing.assert_array_equal(batch, x)
