"""Width gates under a latency budget: which channels live is learned; decoding them meets the budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from research.pytrees import ChannelGroup, flatten, straight_through, unflatten
from research.squeeze.budget import augmented_lagrangian
from research.squeeze.compact import compact
from research.squeeze.transform import (
    ARCHITECTURE,
    IDENTITY,
    Context,
    Link,
    Rewrite,
    Setting,
    Transform,
    Variables,
)

Tree = Any


@dataclass(frozen=True)
class WidthGates(Link):
    """One gate for every `lane` channels of every group; latency at most `budget_ms` on the target chip.

    `penalty` is the quadratic weight of the augmented Lagrangian, `start` the initial logit of a gate.
    """

    budget_ms: float
    lane: int = 8
    penalty: float = 1.0
    start: float = 2.0
    kind: ClassVar[int] = ARCHITECTURE

    def build(self, setting: Setting) -> Transform:
        """Learned: gate logits and the multiplier. View: norm vectors times gates. Term: the budget.

        Raises ValueError when a group's size does not divide by `lane` or has no norm to gate.
        """
        for group in setting.groups:
            if not group.gated:
                raise ValueError(f"group {group.name!r} has no norm to gate: gates act before folding")
            if group.size % self.lane:
                raise ValueError(f"group {group.name!r}: {group.size} is not a multiple of lane={self.lane}")
        groups = {g.name: g for g in setting.groups}

        def init(key: jax.Array, params: Tree) -> tuple[Tree, Tree]:
            scores = {n: importance(g, flatten(params), self.lane) for n, g in groups.items()}
            return {"logits": {n: self.start + s for n, s in scores.items()}, "multiplier": jnp.zeros(())}, {}

        def view(params: Tree, learned: Tree, state: Tree, step: jax.Array, key: jax.Array) -> Tree:
            flat = flatten(params)
            for name, group in groups.items():
                gate = jnp.repeat(choose(learned["logits"][name]), self.lane)
                for path in group.gated:
                    flat[path] = flat[path] * gate
            return unflatten(flat)

        def terms(ctx: Context) -> dict[str, jax.Array]:
            widths = {n: self.lane * jnp.sum(choose(logits)) for n, logits in ctx.learned["logits"].items()}
            excess = setting.latency_ms(widths) / self.budget_ms - 1.0
            return {"budget": augmented_lagrangian(excess, ctx.learned["multiplier"], self.penalty)}

        return IDENTITY._replace(init=init, view=view, terms=terms)

    def check(self, setting: Setting) -> None:
        """ValueError for a budget that even the narrowest network exceeds."""
        least = float(setting.latency_ms({g.name: jnp.asarray(float(self.lane)) for g in setting.groups}))
        if least > self.budget_ms:
            raise ValueError(_infeasible(self.budget_ms, least))

    def smoke(self) -> WidthGates:
        """A budget that any tiny network meets; gates of less than average importance start closed."""
        return replace(self, budget_ms=1e3, start=0.0)

    def settle(self, setting: Setting, learned: Tree, state: Tree) -> Rewrite:
        """Decodes the gates under the exact latency, cuts the closed channels out. ValueError: infeasible."""
        return compaction(setting, learned["logits"], self.lane, self.budget_ms)


def compaction(setting: Setting, logits: Mapping[str, Any], lane: int, budget_ms: float) -> Rewrite:
    """Rewrite of a spec with `.groups()` and `.resized()`: channels outside the decoded choice are removed.

    The report holds the new `widths`, the `latency_ms` they are priced at and the `budget_ms`.
    """

    def price(widths: Mapping[str, int]) -> float:
        return float(setting.latency_ms({n: jnp.asarray(float(w)) for n, w in widths.items()}))

    def rewrite(spec: Any, variables: Variables, data: Any = None) -> tuple[Any, Variables, dict[str, Any]]:
        keep = decode({n: np.asarray(v) for n, v in logits.items()}, lane, budget_ms, price)
        widths = {name: len(index) for name, index in keep.items()}
        params, norm_stats = compact(spec.groups(), keep, variables.params, variables.norm_stats)
        report = {"widths": widths, "latency_ms": price(widths), "budget_ms": budget_ms}
        report["kept"] = {name: index.tolist() for name, index in keep.items()}
        return spec.resized(widths), Variables(params, norm_stats), report

    return rewrite


def choose(logits: jax.Array) -> jax.Array:
    """Hard 0/1 gates of `logits [G]` with the sigmoid's gradient; the strongest gate always stays open.

    The one choice object: the network multiplies by it and the cost counts it.
    """
    best = jnp.arange(logits.shape[0]) == jnp.argmax(logits)
    return straight_through(((logits > 0.0) | best).astype(logits.dtype), jax.nn.sigmoid(logits))


def importance(group: ChannelGroup, flat: Mapping[str, jax.Array], lane: int) -> jax.Array:
    """Standardised magnitude `[G]` of every `lane` channels: norm scale times norm of the outgoing kernel."""
    outgoing = next(path for path, axis in group.params if axis == 2)
    weight = jnp.sqrt(jnp.sum(jnp.square(flat[outgoing]), axis=(0, 1, 3))) * jnp.abs(flat[group.gated[0]])
    score = jnp.mean(weight.reshape(-1, lane), axis=1)
    return (score - jnp.mean(score)) / (jnp.std(score) + 1e-6)


def decode(
    logits: Mapping[str, np.ndarray],
    lane: int,
    budget_ms: float,
    latency_ms: Callable[[Mapping[str, int]], float],
) -> dict[str, np.ndarray]:
    """Kept channel indices per group whose exact latency is within the budget, by construction.

    Starts from the open gates, closes the weakest until `latency_ms({group: width}) <= budget_ms`, then reopens the
    strongest of those that still fit (never a gate that training closed: the network does not use it). Raises
    ValueError when even one gate a group is over the budget.
    """
    values = {name: np.asarray(v, np.float64) for name, v in logits.items()}
    keep = {name: v > 0.0 for name, v in values.items()}
    for name, v in values.items():
        keep[name][np.argmax(v)] = True
    order = sorted((float(v), name, i) for name, vs in values.items() for i, v in enumerate(vs))

    def cost() -> float:
        return latency_ms({name: lane * int(k.sum()) for name, k in keep.items()})

    closed = []
    for _, name, i in order:
        if cost() <= budget_ms:
            break
        if keep[name][i] and keep[name].sum() > 1:
            keep[name][i] = False
            closed.append((name, i))
    if cost() > budget_ms:
        raise ValueError(_infeasible(budget_ms, cost()))
    for name, i in reversed(closed):
        keep[name][i] = True
        keep[name][i] = cost() <= budget_ms
    return {name: np.flatnonzero(np.repeat(k, lane)) for name, k in keep.items()}


def _infeasible(budget_ms: float, least_ms: float) -> str:
    least = f"the narrowest network takes {least_ms:.3f} ms"
    return f"infeasible budget: {budget_ms:g} ms, but {least}; raise budget_ms"
