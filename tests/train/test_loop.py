"""The one loop: a broken run and an unbroken one end in the same bits; a loss that is not finite stops it."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import nets
from research.spec import Experiment, Stage
from research.train import checkpoint, loop
from research.train.loop import NonFiniteLoss, batches, finite, run_stage
from research.train.mesh import data_mesh, replicated
from research.train.progress import Bar, Reporter
from research.train.state import TrainState
from research.train.step import initial_state, program_of
from tests.smoke import same_bits, smoke

EXP = smoke()
STEPS = 9
Damage = Callable[[int, dict[str, jax.Array]], dict[str, jax.Array]]


def train(
    folder: Path, steps: int = STEPS, save_every: int = 4, exp: Experiment = EXP, scan: bool | None = None
) -> TrainState:
    """The baseline's stage with a checkpoint every few steps."""
    stage = Stage("dense", steps)
    net = exp.tracks["v1"].net
    program, hyper = program_of(net, exp.squeeze.only(()), exp.optim, exp.new_chip, None, stage, exp.seed)
    start = nets.init(net, jax.random.key(0))
    return run_stage(
        program, hyper, start, {}, data=exp.data, batch=exp.optim.batch, first=0, folder=folder,
        save_every=save_every, mesh=data_mesh(1), bar=Bar(Reporter(quiet=True), "dense", steps, 0, None),
        scan=scan,
    )  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainState, list[dict[str, float]]]:
    folder = tmp_path_factory.mktemp("unbroken")
    return train(folder), rows(folder)


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def saved_steps(folder: Path) -> list[int]:
    manager = checkpoint.open_manager(folder / "steps")
    steps = sorted(manager.all_steps())
    manager.close()
    return steps


def damage_stream(patch: pytest.MonkeyPatch, damage: Damage) -> None:
    """Every batch goes through `damage(step, batch)` on its way to training."""

    def damaged(data: Any, batch: int) -> Any:
        stream = batches(data, batch)
        return lambda seed, step: damage(step, stream(seed, step))

    patch.setattr(loop, "batches", damaged)


def interrupt_at(stop: int) -> Damage:
    def damage(step: int, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        if step == stop:
            raise KeyboardInterrupt
        return batch

    return damage


def poison_at(bad: int) -> Damage:
    return lambda step, batch: batch | ({"image": batch["image"] * jnp.nan} if step == bad else {})


def test_training_moves_and_is_repeatable(tmp_path: Path, unbroken: tuple[TrainState, list]) -> None:
    again = train(tmp_path, save_every=100)  # how often is saved is no part of the result
    assert same_bits(again, unbroken[0])
    assert int(again.step) == STEPS
    start, _ = nets.init(EXP.tracks["v1"].net, jax.random.key(0))
    assert not same_bits(again.params, start)


@pytest.mark.parametrize("stop", [0, 1, 4, 5, 8])
def test_interrupted_anywhere_it_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbroken: tuple[TrainState, list], stop: int
) -> None:
    with monkeypatch.context() as patch:
        damage_stream(patch, interrupt_at(stop))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert saved_steps(tmp_path)[-1] == stop  # not a step is lost
    trained: list[int] = []
    with monkeypatch.context() as patch:
        damage_stream(patch, lambda step, batch: trained.append(step) or batch)
        assert same_bits(train(tmp_path), unbroken[0])
    assert trained == list(range(stop, STEPS))  # not a step is repeated
    assert [row["step"] for row in rows(tmp_path)] == [4, 8, 9]
    if stop in (0, 4, 8):
        assert rows(tmp_path) == unbroken[1]


def test_interrupted_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbroken: tuple[TrainState, list]
) -> None:
    for stop in (2, 3, 7):
        with monkeypatch.context() as patch:
            damage_stream(patch, interrupt_at(stop))
            with pytest.raises(KeyboardInterrupt):
                train(tmp_path)
    assert same_bits(train(tmp_path), unbroken[0])


def test_without_its_last_checkpoint_it_repeats_what_was_lost(
    tmp_path: Path, unbroken: tuple[TrainState, list]
) -> None:
    train(tmp_path)
    assert saved_steps(tmp_path) == [4, 8]
    manager = checkpoint.open_manager(tmp_path / "steps")
    manager.delete(8)
    manager.close()
    assert same_bits(train(tmp_path), unbroken[0])
    assert rows(tmp_path) == unbroken[1]


def test_from_a_damaged_checkpoint_it_goes_back_to_the_last_good_one(
    tmp_path: Path, unbroken: tuple[TrainState, list]
) -> None:
    train(tmp_path)
    files = [path for path in (tmp_path / "steps" / "8" / "state").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    assert same_bits(train(tmp_path), unbroken[0])
    assert (tmp_path / "steps" / "damaged-8-0").exists()
    assert rows(tmp_path) == unbroken[1]


def test_many_steps_a_dispatch_are_the_steps_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbroken: tuple[TrainState, list]
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(loop, "STEPS", 4)
    damage_stream(monkeypatch, lambda step, batch: asked.append(step) or batch)
    state = train(tmp_path, scan=True)
    assert asked == [8]  # two dispatches of four, and what is left alone
    assert saved_steps(tmp_path) == [4, 8]
    assert state.step == STEPS
    assert [row["step"] for row in rows(tmp_path)] == [4, 8, 9]
    assert [row["loss"] for row in rows(tmp_path)] == pytest.approx(
        [row["loss"] for row in unbroken[1]], abs=1e-5
    )


def test_rows_are_means_of_every_step(tmp_path: Path, unbroken: tuple[TrainState, list]) -> None:
    train(tmp_path, save_every=1)
    losses = [row["loss"] for row in rows(tmp_path)]
    assert len(losses) == STEPS
    assert [row["loss"] for row in unbroken[1]] == pytest.approx(
        [np.mean(losses[a:b]) for a, b in itertools.pairwise((0, 4, 8, 9))]
    )


@pytest.mark.parametrize(("bad", "kept"), [(2, []), (4, [4]), (7, [4]), (8, [4, 8])])
def test_a_bad_loss_names_its_step_and_terms_and_the_last_good_state_stays(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unbroken: tuple[TrainState, list],
    bad: int,
    kept: list[int],
) -> None:
    with monkeypatch.context() as patch:
        damage_stream(patch, poison_at(bad))
        with pytest.raises(NonFiniteLoss, match=f"loss is not finite at step {bad}: loss=nan, task=nan"):
            train(tmp_path)
    assert saved_steps(tmp_path) == kept
    assert same_bits(train(tmp_path), unbroken[0])  # from the state that was kept, over sound data


def test_an_exploding_rate_is_noticed_before_it_is_saved(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss, match=r"loss is not finite at step 1: .*task=(inf|nan)"):
        train(tmp_path, exp=smoke("optim.lr=1e30"))
    assert saved_steps(tmp_path) == []


def test_weights_that_break_in_the_last_update_are_no_result(tmp_path: Path) -> None:
    exp = smoke("optim.lr=1e39")  # the loss of the only step is computed before its update
    with pytest.raises(NonFiniteLoss, match="params is not finite after step 0"):
        train(tmp_path, steps=1, exp=exp)


def test_the_state_of_an_interrupt_is_not_saved_when_it_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage_stream(monkeypatch, lambda step, batch: interrupt_at(6)(step, poison_at(5)(step, batch)))
    with pytest.raises(NonFiniteLoss, match="step 5"):
        train(tmp_path)
    assert saved_steps(tmp_path) == [4]


def test_a_batch_that_does_not_split_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    stage, net = Stage("dense", 2), EXP.tracks["v1"].net
    program, hyper = program_of(net, EXP.squeeze.only(()), EXP.optim, EXP.new_chip, None, stage, 0)
    with pytest.raises(ValueError, match="does not split over 2 devices"):
        run_stage(
            program, hyper, nets.init(net, jax.random.key(0)), {}, data=EXP.data, batch=7, first=0,
            folder=tmp_path / "w", save_every=2, mesh=data_mesh(2), bar=Bar(Reporter(True), "", 2, 0, None),
        )  # fmt: skip
    assert not (tmp_path / "w").exists()


def test_checkpoints_hold_the_whole_state(tmp_path: Path, unbroken: tuple[TrainState, list]) -> None:
    train(tmp_path, save_every=3)
    manager = checkpoint.open_manager(tmp_path / "steps")
    program, hyper = program_of(
        EXP.tracks["v1"].net, EXP.squeeze.only(()), EXP.optim, EXP.new_chip, None, Stage("dense", STEPS), 0
    )
    like = initial_state(program, hyper, *nets.init(program.net, jax.random.key(0)))
    found = checkpoint.read_state(manager, 6, like, replicated(data_mesh(1)))
    assert int(found.step) == 6
    assert jax.tree.structure(found) == jax.tree.structure(unbroken[0])
    assert checkpoint.read_note(manager, 6) == {"steps": STEPS}
    manager.close()


def test_stream_is_one_object_for_one_spec() -> None:
    assert batches(EXP.data, 8) is batches(smoke().data, 8)
    batch = batches(EXP.data, 8)(0, 3)
    assert batch["image"].shape == (8, 32, 32)
    assert not np.array_equal(batch["image"], batches(EXP.data, 8)(0, 4)["image"])


def test_finite_looks_at_every_leaf() -> None:
    assert finite({"a": jnp.zeros(3), "b": [jnp.asarray(1)]})
    assert not finite({"a": jnp.zeros(3), "b": [jnp.asarray([1.0, jnp.inf])]})
