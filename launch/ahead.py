"""Compile an experiment's steps for a mesh of chips that need not be here, and read what the compiler says of them."""

from __future__ import annotations

import dataclasses as dc
import functools
import re
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from launch.chips import TpuChip
from research import nets
from research.data.redrawn import RedrawnHands
from research.data.stream import batches, drawn
from research.data.taught import PART, TaughtHands
from research.nets.formulation import CANONICAL
from research.spec import Experiment
from research.train.arms import all_arms, stage_key, stage_links
from research.train.dispatch import STEPS, dispatch
from research.train.mesh import check_batch, replicated, split_batch
from research.train.population import check_trials, population, stack
from research.train.state import Hyper, Program
from research.train.step import initial_state, program_of, train_step

Tree = Any


@dataclass(frozen=True)
class Packing:
    """How much work one dispatch holds: `steps` of a scan, of one network, or of `trials` of them side by side.

    With `one_seed` the trials share their images, and a chip renders each batch once.
    """

    steps: int = STEPS
    trials: int = 0
    one_seed: bool = False


@dataclass(frozen=True)
class Piece:
    """One program of a run, compiled once: the `stages` that run it and their `steps` together.

    Widths are those before any cut, so what is said of a stage after a cut is an upper bound.
    """

    program: Program
    hyper: Hyper
    stages: tuple[str, ...]
    steps: int


@dataclass(frozen=True)
class Estimate:
    """What the compiler says of one compiled piece, per chip; nothing here was measured.

    `flops`, `hbm_traffic` bytes and both times are of one step (of all trials). `roofline_s`: the compiler's
    `optimal_seconds`. `kernels_s`: its cycles of every kernel over the clock (0 where no clock is known).
    `collectives` a step send data between chips; neither time has their latency. `refused` is the compiler's
    reason where it would not compile, "" else; `loops` it holds, of which only the outer one's turns are known.
    """

    hbm_bytes: float
    flops: float
    hbm_traffic: float
    roofline_s: float
    kernels_s: float
    collectives: int
    loops: int
    compile_s: float
    refused: str = ""

    @property
    def step_s(self) -> float:
        """The larger of the two times: what a step takes at least."""
        return max(self.roofline_s, self.kernels_s)


def pieces(exp: Experiment) -> tuple[Piece, ...]:
    """The programs of a whole run, every arm and stage of its table, each program and each shared stage once."""
    found: dict[Program, Piece] = {}
    seen: set[str] = set()
    for arm in all_arms(exp):
        track = exp.tracks[arm.track]
        for index, stage in enumerate(track.stages):
            links, key = stage_links(exp, arm, index), stage_key(exp, arm, index)
            if key in seen:
                continue
            seen.add(key)
            taught = any(link.taught for _, link in links.items)
            teacher = exp.tracks[track.teacher].net if taught else None
            program, hyper = program_of(track.net, links, exp.optim, exp.new_chip, teacher, stage, exp.seed)
            old = found.get(program, Piece(program, hyper, (), 0))
            found[program] = dc.replace(old, stages=(*old.stages, key), steps=old.steps + stage.steps)
    return tuple(found.values())


def lowered(piece: Piece, data: Any, batch: int, mesh: Mesh, packing: Packing) -> Any:
    """The real sharded dispatch of a piece, its steps one scan, lowered for a mesh and not yet compiled.

    `batch` images a step, split over the mesh; or, with trials, a batch a trial and the trials split over the mesh.
    Images that are looked up on the host are arguments of a single step, and must be there (errors as `data.stream`).
    ValueError for what does not split.
    """
    program = dc.replace(piece.program, formulation=CANONICAL)
    params, norm_stats = nets.init(program.net, jax.random.key(0))
    state = initial_state(program, piece.hyper, params, norm_stats)
    frozen = {}
    if program.teacher is not None:
        frozen = dict(
            zip(("params", "norm_stats"), nets.init(program.teacher, jax.random.key(0)), strict=True)
        )
    run: Any
    if not drawn(data):
        if packing.trials:
            raise ValueError("trials side by side draw their images in the step; these are looked up on the host")
        check_batch(mesh, batch)
        step = jax.jit(functools.partial(train_step, program), donate_argnums=2)
        images = _shapes(looked_up(data, batch), split_batch(mesh))
        return step.lower(*_shapes((piece.hyper, frozen, state), replicated(mesh)), images)
    if not packing.trials:
        run = dispatch(program, mesh, data, batch, packing.steps, True)
        arguments = _shapes((piece.hyper, frozen, state), replicated(mesh))
    else:
        check_trials(mesh, packing.trials)
        run = population(program, mesh, data, batch, packing.steps, one_seed=packing.one_seed, scan=True)
        each = jax.eval_shape(lambda tree: stack([tree] * packing.trials), (piece.hyper, frozen, state))
        arguments = _shapes(each, split_batch(mesh))
    return run.lower(*arguments, _shapes(0, replicated(mesh)))


def looked_up(data: Any, batch: int) -> Any:
    """A batch as the host looks it up; of a large set of renders only a few are drawn, of a teacher's features one part
    computed, and none of them kept."""
    if isinstance(data, RedrawnHands):
        return batches(dc.replace(data, images=batch, cache=""), batch)(0, 0)
    if not isinstance(data, TaughtHands):
        return batches(data, batch)(0, 0)
    with tempfile.TemporaryDirectory() as folder:
        return dict(batches(dc.replace(data, images=PART, cache=folder), batch)(0, 0))


def _shapes(tree: Tree, sharding: NamedSharding) -> Tree:
    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        aval = jax.typeof(leaf)
        return jax.ShapeDtypeStruct(aval.shape, aval.dtype, sharding=sharding, weak_type=aval.weak_type)

    return jax.tree.map(shape, tree)


def estimate(program: Any, chip: TpuChip) -> Estimate:
    """Compiles what `lowered` gave. An `Estimate` with the compiler's words where it refuses for lack of memory."""
    start = time.monotonic()
    try:
        compiled = program.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        words = " ".join(str(error).split())
        return Estimate(0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, time.monotonic() - start, words)
    taken = time.monotonic() - start
    text, costs, memory = compiled.as_text(), compiled.cost_analysis() or {}, compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    seconds = costs.get("optimal_seconds", 0.0)  # with -1 for every operation the compiler has no estimate of
    cycles = sum(int(found) for found in re.findall(r'"estimated_cycles":"(\d+)"', text))
    return Estimate(
        hbm_bytes=held + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes,
        flops=costs.get("flops", 0.0),
        hbm_traffic=costs.get("bytes accessed", 0.0),
        roofline_s=seconds if seconds >= 0.0 else seconds % 1.0,
        kernels_s=cycles / chip.clock_hz if chip.clock_hz else 0.0,
        collectives=len(
            re.findall(
                r" (?:all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(", text
            )
        ),
        loops=len(re.findall(r" while\(", text)),
        compile_s=taken,
    )
