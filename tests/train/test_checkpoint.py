"""Checkpoints: what is read is what was saved, the newest are kept, shapes are checked."""

import gc
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.train import checkpoint
from research.train.mesh import data_mesh, replicated, split_batch
from tests.smoke import same_bits

RNG = np.random.default_rng(0)
STATE = {"w": jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32), "step": jnp.asarray(7)}
WIDE = STATE | {"wide": jnp.asarray(RNG.normal(size=(64, 64)), jnp.float32)}  # too large to lie inside an index
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


def damage(folder: Path, rng: np.random.Generator) -> str:
    """Truncates, removes or flips one bit of a step's file, the larger the likelier; says what it did."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    sizes = np.array([path.stat().st_size for path in files])
    path = files[rng.choice(len(files), p=sizes / sizes.sum())]
    how = ("truncated", "missing", "flipped")[rng.integers(3)]
    content = bytearray(path.read_bytes())
    place = int(rng.integers(len(content)))
    if how == "missing":
        path.unlink()
    else:
        content[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(content[:place] if how == "truncated" else content)
    return f"{how} {path.relative_to(folder)} at {place}"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax forgets a coroutine
@pytest.mark.parametrize("places", [8, pytest.param(30, marks=pytest.mark.slow)])
def test_damage_anywhere_is_never_silently_used(tmp_path: Path, places: int) -> None:
    """Random places: the newest step is either whole to the bit, or moved aside for the step before."""
    older = jax.tree.map(lambda leaf: leaf + 1, WIDE)
    manager = checkpoint.open_manager(tmp_path / "whole")
    checkpoint.save(manager, 1, older, NOTE)
    checkpoint.save(manager, 2, WIDE, NOTE)
    manager.wait_until_finished()
    manager.close()
    rng, used, told = np.random.default_rng(0), [], []
    for place in range(places):
        folder = shutil.copytree(tmp_path / "whole", tmp_path / str(place))
        what = damage(folder / "2", rng)
        manager = checkpoint.open_manager(folder)
        found = checkpoint.restore_latest_good(manager, WIDE, replicated(data_mesh(1)), told.append)
        manager.close()
        assert found is not None, what
        step, state = found
        assert same_bits(state, WIDE if step == 2 else older), what
        assert (folder / "damaged-2-0").exists() == (step == 1), what
        used.append(step)
        shutil.rmtree(folder)
        gc.collect()
    assert used.count(1) == len(told) >= places // 3  # the rest hit metadata that nothing reads


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_step_of_which_only_a_part_was_copied_is_never_used(tmp_path: Path) -> None:
    manager = checkpoint.open_manager(tmp_path / "whole")
    checkpoint.save(manager, 2, WIDE, NOTE)
    manager.wait_until_finished()
    manager.close()
    files = sorted(p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*") if p.is_file())
    data = [path for path in files if "/d/" in path.as_posix()]
    refused = 0
    for count, first in enumerate(data):
        for path in files[: files.index(first)]:
            (tmp_path / str(count) / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "whole" / path, tmp_path / str(count) / path)
        manager, told = checkpoint.open_manager(tmp_path / str(count)), list[str]()
        found = checkpoint.restore_latest_good(manager, WIDE, replicated(data_mesh(1)), told.append)
        manager.close()
        assert len(told) == (found is None)
        assert found is None or same_bits(found[1], WIDE)  # the files of the last place are read by nobody
        refused += found is None
        gc.collect()
    assert refused > 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_when_every_step_is_damaged_there_is_none(tmp_path: Path) -> None:
    manager = checkpoint.open_manager(tmp_path)
    checkpoint.save(manager, 3, STATE, NOTE)
    manager.wait_until_finished()
    note = tmp_path / "3" / "note" / "metadata"
    note.write_text(note.read_text().replace("24", "25"))
    with pytest.raises(checkpoint.Damaged, match="step 3"):
        checkpoint.read_note(manager, 3)
    told: list[str] = []
    assert checkpoint.restore_latest_good(manager, STATE, replicated(data_mesh(1)), told.append) is None
    assert len(told) == 1
    assert "damaged-3-0" in told[0]
    manager.close()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        checkpoint.open_manager(tmp_path / "file" / "under")
