"""Two devices train what one trains; a checkpoint of two opens on one; a batch that does not split is refused."""

import json
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest

from research.spec import Named, Stage
from research.train import loop
from research.train.arms import Arm, full
from research.train.fit import Outcome, fit
from research.train.loop import batches
from research.train.mesh import data_mesh, place, replicated, split_batch
from research.train.step import compiled_step, initial_state, program_of
from tests.smoke import Finished, arrays, largest_difference, same_bits, smoke, v1_steps

EXP = smoke(v1_steps(6), "optim.lr=3e-3")
V1 = Arm("v1")
BREAK = 3


def doubles(tree: Any) -> Any:
    """A tree with its float32 leaves in float64."""
    return jax.tree.map(lambda leaf: leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf, tree)


def in_doubles(devices: int, steps: int) -> tuple[Any, list[float]]:
    """The state and losses of the baseline's compiled step, run in float64 on a number of devices.

    In float32 rounding decides here and there on which side of a ReLU a pixel lies, and Adam makes full steps of
    gradients that are rounding noise: a few steps later the weights differ by the learning rate.
    """
    before, mesh = fit(EXP, V1, Path("unused"), upto=0), data_mesh(devices)
    (stage,) = EXP.tracks["v1"].stages
    program, hyper = program_of(before.net, Named(), EXP.optim, EXP.new_chip, None, stage, EXP.seed)
    state = jax.tree.map(np.asarray, initial_state(program, hyper, before.raw, before.norm_stats))
    stream, losses = batches(EXP.data, EXP.optim.batch), []
    given = [jax.tree.map(np.asarray, stream(EXP.seed, step)) for step in range(steps)]
    chex.clear_trace_counter()
    with jax.enable_x64(True):
        state, step = place(doubles(state), replicated(mesh)), compiled_step.__wrapped__(program, mesh)
        for batch in given:
            state, terms = step(hyper, {}, state, place(doubles(batch), split_batch(mesh)))
            losses.append(float(terms["loss"]))
    return state, losses


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The baseline trained on one device and on two."""
    one, two = (tmp_path_factory.mktemp(f"devices{devices}") for devices in (1, 2))
    fit(EXP, V1, one, devices=1)
    fit(EXP, V1, two, devices=2)
    return one, two


@pytest.fixture(scope="module")
def fits(folders: tuple[Path, Path]) -> tuple[Outcome, Outcome]:
    one, two = (fit(EXP, V1, folder, devices=devices) for devices, folder in enumerate(folders, 1))
    return one, two


def losses(folder: Path) -> list[float]:
    (metrics,) = folder.glob("stages/*/metrics.jsonl")
    return [json.loads(line)["loss"] for line in metrics.read_text().splitlines()]


def break_at(patch: pytest.MonkeyPatch, stop: int) -> None:
    """The stream of batches is interrupted at a step."""

    def broken(data: Any, batch: int) -> Any:
        def at(seed: int, step: int) -> dict[str, jax.Array]:
            if step == stop:
                raise KeyboardInterrupt
            return batches(data, batch)(seed, step)

        return at

    patch.setattr(loop, "batches", broken)


def test_two_devices_are_one_device_in_doubles() -> None:
    (start, _), (one, losses), (two, same) = (in_doubles(*at) for at in ((1, 0), (1, 6), (2, 6)))
    assert one.params["stem"]["kernel"].dtype == np.float64
    assert largest_difference(one, two) < 1e-9
    assert largest_difference(one.params, start.params) > 1e-2
    assert same == pytest.approx(losses, rel=1e-12)


def test_two_devices_train_like_one(folders: tuple[Path, Path], fits: tuple[Outcome, Outcome]) -> None:
    one, two = (losses(folder) for folder in folders)
    assert len(one) == 3
    assert two == pytest.approx(one, rel=1e-2)
    for leaf in jax.tree.leaves(fits[1].raw):
        assert leaf.sharding.is_fully_replicated
        assert len(leaf.devices()) == 2


def test_every_link_has_the_same_terms_and_gradients_on_two_devices(finished: Finished) -> None:
    exp = finished.exp
    links, teacher = exp.squeeze, fit(exp, Arm("teacher"), finished.workdir, devices=1)
    before = fit(exp, full(exp), finished.workdir, upto=1, devices=1)
    stage = Stage("squeeze", 4, links.names)
    program, hyper = program_of(before.net, links, exp.optim, exp.new_chip, teacher.net, stage, exp.seed)
    ends = []
    for mesh in (data_mesh(1), data_mesh(2)):
        state = place(initial_state(program, hyper, before.raw, before.norm_stats), replicated(mesh))
        frozen = place({"params": teacher.params, "norm_stats": teacher.norm_stats}, replicated(mesh))
        batch = place(batches(exp.data, 8)(0, 0), split_batch(mesh))
        state, terms = compiled_step(program, mesh)(hyper, frozen, state, batch)
        ends.append((state.opt, terms))  # Adam's moments after its first step: the gradients themselves
    assert largest_difference(*ends) < 1e-5
    assert max(np.max(np.abs(leaf)) for leaf in arrays(ends[0][0])) > 1e-2


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_checkpoint_opens_on_another_number_of_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: tuple[Path, Path], first: int, then: int
) -> None:
    with monkeypatch.context() as patch:
        break_at(patch, BREAK)
        with pytest.raises(KeyboardInterrupt):
            fit(EXP, V1, tmp_path, devices=first)
    outcome = fit(EXP, V1, tmp_path, devices=then)
    assert losses(tmp_path)[-1] == pytest.approx(losses(folders[0])[-1], rel=1e-2)
    assert len(jax.tree.leaves(outcome.raw)[0].devices()) == then
    again = fit(EXP, V1, tmp_path, devices=first)  # the finished outcome opens anywhere, to the bit
    assert same_bits(again.raw, outcome.raw)


def test_batches_are_the_same_wherever_they_lie() -> None:
    batch = batches(EXP.data, 8)(0, 3)
    for devices in (1, 2):
        lying = place(batch, split_batch(data_mesh(devices)))
        np.testing.assert_array_equal(lying["image"], batch["image"])
        assert len(lying["image"].addressable_shards) == devices


def test_a_batch_that_does_not_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"optim\.batch=7 does not split over 2 devices: choose a multiple"):
        fit(smoke("optim.batch=7"), V1, tmp_path, devices=2)
