"""The programs of a run, lowered as they will run, and what is read from a compiled one."""

import dataclasses as dc
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from launch.ahead import Packing, Piece, estimate, looked_up, lowered, pieces
from launch.chips import CHIPS
from research.data.redrawn import RedrawnHands
from research.data.synthetic import RenderedHands
from research.door import load
from research.train.arms import all_arms, stage_key
from research.train.mesh import data_mesh
from tests.smoke import ROOT, smoke

EXP = smoke()
CHIP = CHIPS["v5e"]
BATCH = EXP.optim.batch


def dense() -> Piece:
    """The baseline's piece."""
    return next(piece for piece in pieces(EXP) if piece.stages[0].startswith("v1."))


def test_every_stage_of_every_arm_is_in_one_piece() -> None:
    found = pieces(EXP)
    keys = {
        stage_key(EXP, arm, index)
        for arm in all_arms(EXP)
        for index in range(len(EXP.tracks[arm.track].stages))
    }
    assert sorted(stage for piece in found for stage in piece.stages) == sorted(keys)
    assert len({piece.program for piece in found}) == len(found) < len(keys)
    assert sum(piece.steps for piece in found) == 4 * len(keys)  # every smoke stage has four steps
    assert {piece.program.teacher is None for piece in found} == {True, False}


def test_what_is_lowered_is_one_scan_over_a_mesh_with_canonical_convolutions() -> None:
    mesh = data_mesh(2)
    program = lowered(dense(), EXP.data, BATCH, mesh, Packing(steps=3))
    text = program.as_text()
    assert "feature_group_count = 16" in text  # the canonical depthwise convolution, on this CPU too
    assert "stablehlo.while" in text
    assert "mhlo.num_partitions = 2" in text
    assert program.out_info[1]["loss"].shape == (3,)


def test_trials_are_lowered_side_by_side() -> None:
    program = lowered(dense(), EXP.data, BATCH, data_mesh(2), Packing(2, 4, one_seed=True))
    assert program.out_info[1]["loss"].shape == (4, 2)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(program.out_info[0])} == {4}


def test_images_that_the_host_looks_up_are_arguments_of_one_step() -> None:
    exp = load(ROOT / "configs" / "teacher_mediapipe.py", smoke=True)
    taught = next(piece for piece in pieces(exp) if "teacher" in piece.stages[0])
    program = lowered(taught, exp.data, exp.optim.batch, data_mesh(2), Packing())
    images = program.in_avals[0][3]
    assert images["image"].shape == (8, 32, 32)
    assert {name for name in images if name.startswith("taught/")} >= {"taught/keypoints"}
    assert program.out_info[1]["loss"].shape == ()
    with pytest.raises(ValueError, match="looked up on the host"):
        lowered(taught, exp.data, exp.optim.batch, data_mesh(2), Packing(trials=2))


def test_a_large_set_is_not_drawn_for_its_shapes(tmp_path: Path) -> None:
    hands = RenderedHands(size_px=32, test_images=5)
    images = looked_up(RedrawnHands(hands, 10**9, cache=str(tmp_path)), 8)
    assert images["image"].shape == (8, 32, 32)
    assert not list(tmp_path.iterdir())


def test_what_does_not_split_is_refused() -> None:
    with pytest.raises(ValueError, match="3 trials do not split over 2 devices"):
        lowered(dense(), EXP.data, BATCH, data_mesh(2), Packing(2, 3))
    with pytest.raises(ValueError, match=r"optim\.batch=7 does not split"):
        lowered(dense(), EXP.data, 7, data_mesh(2), Packing())


def test_an_estimate_reads_memory_work_and_loops() -> None:
    def loop(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda y, _: (y @ y, None), x, length=4)[0]

    found = estimate(jax.jit(loop).lower(jnp.zeros((64, 64))), CHIP)
    assert found.hbm_bytes >= 2 * 64 * 64 * 4
    assert found.flops >= 2 * 64**3
    assert found.loops == 1
    assert (found.collectives, found.kernels_s, found.refused) == (0, 0.0, "")


class Compiled:
    """What a TPU compiler gives back: two kernels, an all-reduce, an operation it has no estimate of."""

    def compile(self) -> "Compiled":
        return self

    def as_text(self) -> str:
        kernels = "\n".join(f'fusion(), backend_config={{"estimated_cycles":"{n}"}}' for n in (1000, 2000))
        return f"{kernels}\nx = f32[] all-reduce-start(y)\nz = f32[] all-reduce-done(x)\n"

    def cost_analysis(self) -> dict[str, float]:
        return {"flops": 5e6, "bytes accessed": 7e6, "optimal_seconds": -1.0 + 1e-6}

    def memory_analysis(self) -> Any:
        sizes = {"argument": 100, "output": 50, "alias": 40, "temp": 7, "generated_code": 3}
        return type("Memory", (), {f"{name}_size_in_bytes": size for name, size in sizes.items()})


class Refused:
    """A program that the compiler finds no memory for."""

    def __init__(self, words: str) -> None:
        self.words = words

    def compile(self) -> Any:
        raise jax.errors.JaxRuntimeError(self.words)


def test_cycles_collectives_and_unknown_operations() -> None:
    found = estimate(Compiled(), CHIP)
    assert found.hbm_bytes == 120
    assert found.kernels_s == pytest.approx(3000 / 1.5e9)
    assert found.roofline_s == pytest.approx(1e-6)
    assert found.step_s == found.kernels_s
    assert found.collectives == 1
    assert json.dumps(dc.asdict(found))
    assert estimate(Compiled(), CHIPS["v6e"]).kernels_s == 0.0


def test_a_refusal_for_memory_is_an_estimate_and_any_other_error_is_not() -> None:
    found = estimate(Refused("RESOURCE_EXHAUSTED: Ran out of memory\non HBM"), CHIP)
    assert found.refused == "RESOURCE_EXHAUSTED: Ran out of memory on HBM"
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        estimate(Refused("INTERNAL: no"), CHIP)
