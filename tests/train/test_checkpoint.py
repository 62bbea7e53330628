"""Checkpoints: what is read is what was saved, the newest are kept, shapes are checked."""

import gc
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.train import checkpoint
from research.train.mesh import data_mesh, replicated, split_batch
from tests.smoke import same_bits

STATE = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32), "step": jnp.asarray(7)}
NOTE = {"widths": {"b0": 24}, "words": ["a", "b"]}


def test_state_and_note_come_back_to_the_bit(tmp_path: Path) -> None:
    manager = checkpoint.open_manager(tmp_path / "deep" / "folder")
    assert checkpoint.newest(manager) is None
    checkpoint.save(manager, 7, STATE, NOTE)
    manager.wait_until_finished()
    assert checkpoint.read_note(manager, 7) == NOTE
    like = jax.eval_shape(lambda: STATE)
    found = checkpoint.read_state(manager, 7, like, replicated(data_mesh(1)))
    assert same_bits(found, STATE)
    manager.close()


def test_newest_are_kept_and_a_step_is_saved_once(tmp_path: Path) -> None:
    manager = checkpoint.open_manager(tmp_path, keep=2)
    for step in (2, 4, 6):
        checkpoint.save(manager, step, STATE, {"first": True})
    checkpoint.save(manager, 6, STATE, {"first": False})
    manager.wait_until_finished()
    assert sorted(manager.all_steps()) == [4, 6]
    assert checkpoint.newest(manager) == 6
    assert checkpoint.read_note(manager, 6) == {"first": True}
    manager.close()


def test_saved_on_two_devices_opens_on_one_and_back(tmp_path: Path) -> None:
    two, one = data_mesh(2), data_mesh(1)
    manager = checkpoint.open_manager(tmp_path)
    split = {"w": jax.device_put(STATE["w"], split_batch(two)), "step": STATE["step"]}
    checkpoint.save(manager, 0, split, {})
    manager.wait_until_finished()
    for mesh in (one, two):
        found = checkpoint.read_state(manager, 0, STATE, replicated(mesh))
        assert found["w"].devices() == set(mesh.devices)
        assert same_bits(found, STATE)
    manager.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax forgets a coroutine
def test_other_shapes_are_refused(tmp_path: Path) -> None:
    manager = checkpoint.open_manager(tmp_path)
    checkpoint.save(manager, 0, STATE, {})
    manager.wait_until_finished()
    with pytest.raises(ValueError, match="shape"):
        checkpoint.read_state(manager, 0, STATE | {"w": jnp.zeros((5, 6))}, replicated(data_mesh(1)))
    gc.collect()
    manager.close()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        checkpoint.open_manager(tmp_path / "file" / "under")
