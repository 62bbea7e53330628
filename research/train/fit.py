"""Fit an arm: its teacher, then its stages in order, each from the outcome of the one before, every outcome kept."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from research import nets
from research.data.stream import batches, untaught
from research.spec import Experiment
from research.squeeze import Variables, close
from research.train import checkpoint
from research.train.arms import Arm, stage_key, stage_links
from research.train.evaluate import predict
from research.train.hosts import by_first, local, stop_if_told, whole
from research.train.ledger import Entry, check_experiment, rebuild, rewrite_entry, stage_entry
from research.train.loop import finite, run_stage
from research.train.mesh import data_mesh
from research.train.progress import Reporter
from research.train.setting import setting_of
from research.train.signals import held
from research.train.state import Hyper, Program, TrainState
from research.train.step import effective, program_of

Tree = Any
EQUAL_TO = 1e-4


class Outcome(NamedTuple):
    """A network after a stage: `raw` goes into the next, `params` (the squeezed view) is evaluated and shipped."""

    net: Any
    raw: Tree
    params: Tree
    norm_stats: Tree
    ledger: tuple[Entry, ...]


def fit(
    exp: Experiment,
    arm: Arm,
    workdir: Path,
    *,
    devices: int = 0,
    model: int = 1,
    reporter: Reporter | None = None,
    upto: int | None = None,
) -> Outcome:
    """Trains an arm (or its first `upto` stages), or what is left of it, and returns its outcome.

    Everything finished is read back from `workdir`. Raises ValueError for an illegal experiment or infeasible budget,
    NonFiniteLoss, and lets KeyboardInterrupt through after saving. Batches are split over `devices` (0: all), wide
    kernels over groups of `model` of them. With several processes each calls this, the first alone uses `workdir`.
    """
    check_experiment(exp)
    reporter, mesh = reporter or Reporter(quiet=True), data_mesh(devices, model)
    stages = exp.tracks[arm.track].stages[:upto]
    found = (
        (i, by_first(functools.partial(_read, exp, arm, i, workdir, local(mesh), reporter)))
        for i in reversed(range(len(stages)))
    )
    done, outcome = next(((i, outcome) for i, outcome in found if outcome), (-1, None))
    if outcome is None:
        net = exp.tracks[arm.track].net
        params, norm_stats = nets.init(net, jax.random.fold_in(jax.random.key(exp.seed), 7))
        outcome = Outcome(net, params, params, norm_stats, ())
    for index in range(done + 1, len(stages)):
        stop_if_told()
        outcome = _stage(exp, arm, index, outcome, workdir, mesh, reporter)
    return outcome


def finished(exp: Experiment, arm: Arm, workdir: Path) -> bool:
    """Whether the last stage of an arm has its outcome on disk."""
    return has_outcome(exp, arm, len(exp.tracks[arm.track].stages) - 1, workdir)


def has_outcome(exp: Experiment, arm: Arm, index: int, workdir: Path) -> bool:
    """Whether a stage of an arm has its outcome on disk."""
    folder = workdir / "stages" / stage_key(exp, arm, index) / "outcome"
    return folder.is_dir() and any(child.name.isdigit() for child in folder.iterdir())


def check_links(exp: Experiment) -> None:
    """Builds every chain of every stage and asks its links what can be known before training.

    ValueError for a rule that matches nothing, an illegal order, or a budget that no choice can meet.
    """
    for _, track in exp.tracks.items:
        teacher = exp.tracks[track.teacher].net if track.teacher else None
        for stage in track.stages:
            links = exp.squeeze.only(stage.links)
            setting = setting_of(Program(track.net, links, exp.optim, exp.new_chip, teacher), links)
            for _, link in links.items:
                link.build(setting)
                link.check(setting)


class Part(NamedTuple):
    """A stage of an arm, ready to train: what is compiled, its numbers, where it starts, its teacher's weights, where
    it lands, and its first step in the stream."""

    program: Program
    hyper: Hyper
    start: tuple[Tree, Tree]
    frozen: Tree
    folder: Path
    first: int


def part_of(
    exp: Experiment, arm: Arm, index: int, before: Outcome, workdir: Path, mesh: Mesh, reporter: Reporter
) -> Part:
    """A stage after the outcome of the one before it; its teacher is trained first where it is not yet."""
    track, links = exp.tracks[arm.track], stage_links(exp, arm, index)
    taught = any(link.taught for _, link in links.items)
    size, groups = mesh.size, dict(mesh.shape).get("model", 1)
    teacher = (
        fit(exp, Arm(track.teacher), workdir, devices=size, model=groups, reporter=reporter)
        if taught
        else None
    )
    taught_by = teacher.net if teacher else None
    program, hyper = program_of(
        before.net, links, exp.optim, exp.new_chip, taught_by, track.stages[index], exp.seed
    )
    frozen = {"params": teacher.params, "norm_stats": teacher.norm_stats} if teacher else {}
    folder, first = workdir / "stages" / stage_key(exp, arm, index), sum(s.steps for s in track.stages[:index])
    return Part(program, hyper, (before.raw, before.norm_stats), frozen, folder, first)


def _stage(
    exp: Experiment, arm: Arm, index: int, before: Outcome, workdir: Path, mesh: Mesh, reporter: Reporter
) -> Outcome:
    part = part_of(exp, arm, index, before, workdir, mesh, reporter)
    with reporter.bar(part.folder.name, part.hyper.steps) as bar:
        trained = run_stage(
            part.program,
            part.hyper,
            part.start,
            part.frozen,
            data=exp.data,
            batch=exp.optim.batch,
            first=part.first,
            folder=part.folder,
            save_every=exp.save_every,
            mesh=mesh,
            bar=bar,
        )
    state = whole(trained)
    return by_first(lambda: conclude(exp, arm, index, part, before, state))


def conclude(
    exp: Experiment, arm: Arm, index: int, part: Part, before: Outcome, state: TrainState
) -> Outcome:
    """The outcome of a trained stage, its rewrites applied, written to disk. ValueError where it is not finite."""
    stage, links = exp.tracks[arm.track].stages[index], stage_links(exp, arm, index)
    ledger = (*before.ledger, stage_entry(stage, links.names))
    params = effective(part.program, part.hyper, state)
    after = Outcome(before.net, state.params, params, state.norm_stats, ledger)
    for name in stage.settle:
        if name in links.names:
            after = _settle(exp, name, part.program, part.hyper, state, after)
    if not finite((after.raw, after.norm_stats)):
        raise ValueError(f"stage {part.folder.name}: the trained weights are not finite")
    _write(after, part.folder / "outcome")
    return after._replace(**whole(_arrays(after)))


def _write(outcome: Outcome, folder: Path) -> None:
    store = checkpoint.open_manager(folder, keep=1)
    try:
        with held():
            checkpoint.save(store, 0, whole(_arrays(outcome)), {"ledger": list(outcome.ledger)})
            store.wait_until_finished()
    finally:
        store.close()


def _arrays(outcome: Outcome) -> dict[str, Tree]:
    return {"raw": outcome.raw, "params": outcome.params, "norm_stats": outcome.norm_stats}


def _read(
    exp: Experiment, arm: Arm, index: int, workdir: Path, sharding: NamedSharding, reporter: Reporter
) -> Outcome | None:
    """The outcome of a stage in the shapes its ledger rebuilds; None where unfinished, or damaged and moved aside."""
    if not has_outcome(exp, arm, index, workdir):
        return None
    store = checkpoint.open_manager(workdir / "stages" / stage_key(exp, arm, index) / "outcome", keep=1)
    try:
        ledger = tuple(checkpoint.read_note(store, 0)["ledger"])
        net = rebuild(exp.tracks[arm.track].net, ledger)
        params, norm_stats = nets.shapes(net)
        like = {"raw": params, "params": params, "norm_stats": norm_stats}
        arrays = whole(checkpoint.read_state(store, 0, like, sharding))
    except checkpoint.Damaged as error:
        reporter.say(f"{error}; kept as {checkpoint.set_aside(store, 0).name}, the stage is done again")
        return None
    finally:
        store.close()
    return Outcome(net, arrays["raw"], arrays["params"], arrays["norm_stats"], ledger)


def _settle(
    exp: Experiment, name: str, program: Program, hyper: Hyper, state: TrainState, before: Outcome
) -> Outcome:
    """Applies a link's rewrite to raw and effective weights alike, and checks that outputs stay equal."""
    links = exp.squeeze.only(program.links.names)
    rewrite = links[name].settle(setting_of(program, links), state.learned[name], state.squeeze[name])
    images = np.asarray(batches(untaught(exp.data), exp.optim.batch)(exp.seed + 1, 0)["image"])
    net, raw, report = rewrite(before.net, Variables(before.raw, before.norm_stats), images)
    _, view, _ = rewrite(before.net, Variables(before.params, before.norm_stats), images)
    kept = {group: np.asarray(index) for group, index in report.pop("kept", {}).items()}
    closed = close(before.net.groups(), kept, before.params)
    old = predict(before.net, closed, before.norm_stats, images)
    new = predict(net, view.params, view.norm_stats, images)
    report["max_difference"] = float(np.max(np.abs(old - new)))
    if not report["max_difference"] <= EQUAL_TO:
        raise ValueError(
            f"rewrite of {name!r} changed the output by {report['max_difference']:.2g} (> {EQUAL_TO:g})"
        )
    ledger = (*before.ledger, rewrite_entry(name, report))
    return Outcome(net, raw.params, view.params, view.norm_stats, ledger)
