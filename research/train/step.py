"""The one train step. It names no method: views, sites, terms and updates come from the chain."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from research import nets
from research.spec import Stage, join_floats, split_floats
from research.squeeze import Context, Transform, chain, check_order
from research.train.optim import learning_rate, optimiser
from research.train.setting import setting_of
from research.train.state import Hyper, Program, TrainState
from research.train.task import task_loss, task_terms

Tree = Any
StepFn = Callable[[Hyper, Tree, TrainState, Mapping[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]]


def transform_of(program: Program, links: Any) -> Transform:
    """The chain of a program, its links given with their floats (traced or not). ValueError for an illegal order."""
    check_order(dict(links.items))
    setting = setting_of(program, links)
    return chain(**{name: link.build(setting) for name, link in links.items})


def train_step(
    program: Program, hyper: Hyper, frozen: Tree, state: TrainState, batch: Mapping[str, jax.Array]
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step: `batch` has `image [N,S,S]` and `keypoints [N,21,2]`; returns the next state and every loss term.

    `distance`, the mean one in fractions of the crop, is told beside `task` where that is another loss.
    """
    squeeze = transform_of(program, join_floats(program.links, hyper.links))
    optim = join_floats(program.optim, hyper.optim)
    key = jax.random.fold_in(jax.random.key(hyper.seed), state.step)

    def loss(trainable: Tree) -> tuple[jax.Array, tuple[dict[str, jax.Array], Context]]:
        raw, learned = trainable["params"], trainable["learned"]
        params = squeeze.view(raw, learned, state.squeeze, state.step, key)
        sites = squeeze.sites(learned, state.squeeze, state.step)
        out = nets.forward(
            program.net,
            params,
            state.norm_stats,
            batch["image"],
            train=True,
            sites=sites,
            formulation=program.formulation,
            compute=program.optim.compute,
        )
        ctx = Context(
            raw,
            params,
            out.norm_stats,
            learned,
            state.squeeze,
            frozen,
            out.keypoints,
            out.taps,
            batch,
            state.step,
            {},
        )
        truth = batch["keypoints"]
        terms = task_terms(optim, out.keypoints, out.taps["head"], truth) | squeeze.terms(ctx)
        return jnp.sum(jnp.stack(list(terms.values()))), (terms, ctx)

    trainable = {"params": state.params, "learned": state.learned}
    (total, (terms, ctx)), grads = jax.value_and_grad(loss, has_aux=True)(trainable)
    factor = learning_rate(state.step, hyper.steps, optim.warmup, hyper.lr_start, hyper.lr_end)
    moves, opt = optimiser(optim, factor).update(grads, state.opt, trainable)
    trainable = optax.apply_updates(trainable, moves)
    squeezed = squeeze.update(state.squeeze, ctx._replace(grads=grads["params"]))
    state = TrainState(
        state.step + 1, trainable["params"], trainable["learned"], squeezed, ctx.norm_stats, opt
    )
    told = {"loss": total}
    if optim.loss != "distance":
        told["distance"] = task_loss(ctx.outputs, batch["keypoints"])
    return state, terms | told


@functools.cache
def compiled_step(program: Program, mesh: Mesh) -> StepFn:
    """The jitted step of a program on a mesh. A second trace (another shape or type) raises AssertionError (chex)."""

    def step(
        hyper: Hyper, frozen: Tree, state: TrainState, batch: Mapping[str, jax.Array]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        try:
            return train_step(program, hyper, frozen, state, batch)
        except BaseException:  # an interrupted or refused trace is none: the next call may try again
            chex.clear_trace_counter()
            raise

    # chex counts traces by source and name: a name of its own, the same in every process, for every program and mesh
    told = repr((program, dict(mesh.shape), [device.id for device in mesh.devices.flat]))
    step.__name__ = f"train_step_{hashlib.sha256(told.encode()).hexdigest()[:12]}"
    return jax.jit(chex.assert_max_traces(step, n=1), donate_argnums=2)


def initial_state(program: Program, hyper: Hyper, params: Tree, norm_stats: Tree) -> TrainState:
    """The state a stage starts from: fresh learned variables, transform state and optimiser for given weights."""
    links, optim = join_floats(program.links, hyper.links), join_floats(program.optim, hyper.optim)
    key = jax.random.fold_in(jax.random.key(hyper.seed), 2**31 - 1)
    learned, squeeze = transform_of(program, links).init(key, params)
    opt = optimiser(optim, 1.0).init({"params": params, "learned": learned})
    return TrainState(jnp.zeros((), jnp.int32), params, learned, squeeze, norm_stats, opt)


def effective(program: Program, hyper: Hyper, state: TrainState) -> Tree:
    """The parameters the network really computes with: what is evaluated, priced and shipped."""
    links = join_floats(program.links, hyper.links)
    squeeze = transform_of(program, links)
    return squeeze.view(state.params, state.learned, state.squeeze, state.step, jax.random.key(hyper.seed))


def program_of(
    net: Any, links: Any, optim: Any, chip: Any, teacher: Any, stage: Stage, seed: int
) -> tuple[Program, Hyper]:
    """Splits a stage into what is compiled and what is an argument of the compiled step."""
    static_links, link_floats = split_floats(links)
    static_optim, optim_floats = split_floats(optim)
    program = Program(net, static_links, static_optim, chip, teacher)
    return program, Hyper(link_floats, optim_floats, stage.steps, stage.lr_start, stage.lr_end, seed)
