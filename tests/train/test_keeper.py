"""A keeper gives back what it was given, and the step before where that was damaged."""

from pathlib import Path

import jax.numpy as jnp
import pytest

from research.train.keeper import Keeper
from research.train.mesh import data_mesh, place, replicated
from tests.smoke import same_bits

STATE = {"w": jnp.arange(6.0).reshape(2, 3), "step": jnp.int32(4)}


def test_it_gives_back_the_newest(tmp_path: Path) -> None:
    mesh = data_mesh(2)
    state = place(STATE, replicated(mesh))
    keeper = Keeper(tmp_path / "steps", mesh)
    assert keeper.restore(state, pytest.fail) is None
    keeper.save(4, state, {"steps": 9})
    keeper.save(8, place({"w": STATE["w"] + 1, "step": STATE["step"] * 2}, replicated(mesh)), {"steps": 9})
    keeper.close()
    keeper = Keeper(tmp_path / "steps", data_mesh(1))
    step, found = keeper.restore(state, pytest.fail)
    assert (step, int(found["step"])) == (8, 8)
    files = [path for path in (tmp_path / "steps" / "8" / "state").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    told: list[str] = []
    step, found = keeper.restore(state, told.append)
    keeper.close()
    assert step == 4
    assert same_bits(found, STATE)
    assert len(told) == 1


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="file"):
        Keeper(tmp_path / "file" / "steps", data_mesh(1))
