"""A squeeze is a pure transform: views params -> params, terms context -> named scalars, one `chain`."""

from __future__ import annotations

import dataclasses as dc
import itertools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import jax

from research.npu.table import LayerTable
from research.pytrees import ChannelGroup

Tree = Any
SiteFn = Callable[[jax.Array], jax.Array]

ARCHITECTURE, SPARSITY, PRECISION, LOSS = range(4)
"""Kinds of links, in the only order their views may be chained (losses have no view, may stand anywhere)."""


class Context(NamedTuple):
    """What a term or an update may read. `raw`: the trained parameters; `params`: what the network ran on.

    `frozen` holds weights that are never trained (the teacher's); `outputs [N,21,2]`, `taps` {site:
    activation}; `grads` (of the weights) is empty in `terms` and filled in `update`.
    """

    raw: Tree
    params: Tree
    norm_stats: Tree
    learned: Tree
    state: Tree
    frozen: Tree
    outputs: jax.Array
    taps: Mapping[str, jax.Array]
    batch: Mapping[str, jax.Array]
    step: jax.Array
    grads: Tree


class Transform(NamedTuple):
    """Five pure functions; a method is `IDENTITY` with one or two of them replaced.

    `init(key, params) -> (learned, state)`; `view(params, learned, state, step, key) -> params`;
    `sites(learned, state, step) -> {site glob: fn}`; `terms(ctx) -> {name: scalar loss}`;
    `update(state, ctx) -> state`.
    """

    init: Callable[[jax.Array, Tree], tuple[Tree, Tree]]
    view: Callable[[Tree, Tree, Tree, jax.Array, jax.Array], Tree]
    sites: Callable[[Tree, Tree, jax.Array], dict[str, SiteFn]]
    terms: Callable[[Context], dict[str, jax.Array]]
    update: Callable[[Tree, Context], Tree]


IDENTITY = Transform(
    init=lambda key, params: ({}, {}),
    view=lambda params, learned, state, step, key: params,
    sites=lambda learned, state, step: {},
    terms=lambda ctx: {},
    update=lambda state, ctx: state,
)


@dc.dataclass(frozen=True)
class Setting:
    """What a link may know about the network it squeezes, fixed before tracing.

    `paths` of all parameters, `sites` of all activations, `groups` of removable channels,
    `latency_ms({group: width}) -> ms` priced with every link of the chain, `teacher(frozen, images) ->
    (outputs, taps)` or None.
    """

    paths: tuple[str, ...]
    sites: tuple[str, ...]
    groups: tuple[ChannelGroup, ...]
    latency_ms: Callable[[Mapping[str, jax.Array]], jax.Array]
    teacher: Callable[[Tree, jax.Array], tuple[jax.Array, Mapping[str, jax.Array]]] | None


class Variables(NamedTuple):
    """What a network is between stages: nested dicts of arrays."""

    params: Tree
    norm_stats: Tree


class Rewrite(Protocol):
    """The second noun: between stages only, `(spec, variables, data) -> (spec', variables', report)`.

    The report is plain JSON for the ledger; where it holds `widths`, restore rebuilds the shapes from them.
    """

    def __call__(self, spec: Any, variables: Variables, data: Any) -> tuple[Any, Variables, dict[str, Any]]:
        """Apply the rewrite. ValueError where it is illegal."""
        ...


class Link(Protocol):
    """The spec of one method: a frozen dataclass with a kind and a `build`. Its floats may arrive traced."""

    kind: ClassVar[int]
    taught: ClassVar[bool] = False  # whether it needs the track's teacher

    def build(self, setting: Setting) -> Transform:
        """The transform of this link for one network. ValueError for rules that match nothing."""
        ...

    def check(self, setting: Setting) -> None:
        """What can be known before training. ValueError for a demand that no choice can meet."""

    def settle(self, setting: Setting, learned: Tree, state: Tree) -> Rewrite:
        """The rewrite that makes this link's choice physical when a stage settles it. ValueError: none."""
        raise ValueError(f"{type(self).__name__} has nothing to settle: take it out of the stage's settle")

    def price(self, table: LayerTable, kernels: tuple[str | None, ...]) -> LayerTable:
        """The layer table as this link changes its price; `kernels` is the parameter path of every row."""
        return table


def chain(**links: Transform) -> Transform:
    """One transform from named ones: views compose in order; learned, state and terms stand under each name.

    Its `sites` raises ValueError when two links claim the same site rule.
    """

    def init(key: jax.Array, params: Tree) -> tuple[Tree, Tree]:
        made = {n: t.init(jax.random.fold_in(key, i), params) for i, (n, t) in enumerate(links.items())}
        return {n: learned for n, (learned, _) in made.items()}, {n: state for n, (_, state) in made.items()}

    def view(params: Tree, learned: Tree, state: Tree, step: jax.Array, key: jax.Array) -> Tree:
        for i, (n, t) in enumerate(links.items()):
            params = t.view(params, learned[n], state[n], step, jax.random.fold_in(key, i))
        return params

    def sites(learned: Tree, state: Tree, step: jax.Array) -> dict[str, SiteFn]:
        out: dict[str, SiteFn] = {}
        for n, t in links.items():
            for rule, fn in t.sites(learned[n], state[n], step).items():
                if rule in out:
                    raise ValueError(f"links {n!r} and another both act on site rule {rule!r}")
                out[rule] = fn
        return out

    def own(ctx: Context, name: str, state: Tree) -> Context:
        return ctx._replace(learned=ctx.learned[name], state=state[name])

    def terms(ctx: Context) -> dict[str, jax.Array]:
        return {f"{n}/{k}": v for n, t in links.items() for k, v in t.terms(own(ctx, n, ctx.state)).items()}

    def update(state: Tree, ctx: Context) -> Tree:
        return {n: t.update(state[n], own(ctx, n, state)) for n, t in links.items()}

    return Transform(init, view, sites, terms, update)


def check_order(links: Mapping[str, Link]) -> None:
    """ValueError when views are chained in an illegal order: architecture, then sparsity, then precision."""
    views = [(name, link.kind) for name, link in links.items() if link.kind != LOSS]
    for (first, a), (second, b) in itertools.pairwise(views):
        if a > b:
            raise ValueError(
                f"illegal chain: {second!r} must come before {first!r} "
                "(architecture, then sparsity, then precision: each view reads what the one before it left)"
            )
