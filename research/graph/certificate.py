"""What every rewrite pattern claims, in float and in integers, and the check of the claim on random graphs.

Float: "exact" is bit-identical in the float interpreter. Otherwise the difference is at most
(2 n + ulps) 2^-24 times the sum of the absolute values of all terms of that number, n the products in one
output of the layer: any order of summing n terms errs by at most n 2^-24 of that sum (Higham 2002, section
4.2), once before and once after the rewrite, and every further rounding, of a weight too, adds one.

Integers: where bit-equality is claimed, the programs before and after are quantised with one scale for all
tensors and every output integer is compared. The folds claim nothing: a fold removes an integer tensor, so
the network rounds once less, and it quantises other weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.graph import oracle
from research.graph.integer import quantise
from research.graph.interpret import apply_float, site_values
from research.graph.ir import WEIGHTED, Node, Op
from research.graph.matching import Change, View
from research.graph.rewrite import PATTERNS
from research.graph.tangles import IMAGE, tangle
from research.graph.weights import Weights, weights_of

UNIT = 2.0**-24
RANGE = (-2.0, 2.0)  # of every tensor of the integer programs
_OPS: tuple[Op, ...] = ("add", "mul", "div", "clamp")
SHARED, LESS = "equal at one scale", "none: rounds less"
Values = Mapping[str, jax.Array]
_TERMS: Mapping[Op, Op] = {**{op: op for op in (*WEIGHTED, *_OPS)}, "sub": "add", "neg": "abs"}


class Certificate(NamedTuple):
    """The claims of a pattern. ulps: 0 is bit-identical, else the roundings beside the sums (see the module)."""

    ulps: int = 0
    integers: str = SHARED


_FOLDS = ("fold_scale_after", "fold_shift_after", "fold_scale_before", "fold_shift_before")
CERTIFICATES: Mapping[str, Certificate] = {
    **{p.name: Certificate() for p in PATTERNS},
    **dict.fromkeys(_FOLDS, Certificate(8, LESS)),
    **dict.fromkeys(("fold_constants", "fold_kernel", "fuse_bias"), Certificate(0, LESS)),
    "multiply_not_divide": Certificate(3, LESS),  # a quotient; a reciprocal and a product
    "make_hard_swish": Certificate(10, LESS),  # three steps and their constants, and those of the hard swish
    "make_leaky_relu": Certificate(3, LESS),  # as the division, where the slope is one
    "merge_constants": Certificate(16, LESS),  # up to six steps and their constants, and two
}


class Evidence(NamedTuple):
    """What one graph showed of a pattern. reasons: of its refusals. uses: 0 where no place fits.

    error, allowed: largest difference relative to the sum of absolute terms, and the bound. compared, differing:
    integers of the outputs.
    """

    reasons: tuple[str, ...]
    uses: int = 0
    error: float = 0.0
    allowed: float = 0.0
    compared: int = 0
    differing: int = 0


def _terms(view: View, values: Values, name: str, kept: set[str]) -> jax.Array:
    """Sum of the absolute values of all terms of a tensor, down to tensors that the rewrite left as they are."""
    node, here = view.maker(name), jnp.abs(values[name])
    if node is None or node.op not in _TERMS:
        return here
    inputs = [jnp.abs(values[i]) if i in kept else _terms(view, values, i, kept) for i in node.inputs]
    weights = Weights({path: np.abs(w) for path, w in weights_of(view.graph, view.weights).arrays.items()})
    plain = replace(node, op=_TERMS[node.op], activation="none", bounds=None)
    return jnp.maximum(apply_float(plain, inputs, weights, view.graph.shape(name)), here)


def _compare(
    view: View, old: Values, after: View, images: np.ndarray, node: Node, ulps: int
) -> tuple[float, float]:
    """(error, allowed) of a rewrite at `node`: of its tensor, or where it claims to be exact of every tensor."""
    new = site_values(after.graph, {path: w.astype(np.float32) for path, w in after.weights.items()}, images)
    kept = {name for name, value in new.items() if name in old and np.array_equal(value, old[name])}
    error, made = 0.0, after.maker(node.output)
    for name in (set(old) & set(new)) - kept if ulps == 0 else {node.output} & set(new) - kept:
        terms = np.maximum(_terms(view, old, name, kept), np.float32(1e-30))
        error = max(error, float((np.abs(np.float64(old[name]) - np.float64(new[name])) / terms).max()))
    products = prod(made.kernel_shape[:-1]) if made and made.op in WEIGHTED else 0
    return error, (2 * products + ulps) * UNIT if ulps else 0.0


def examine(seed: int, images: int = 2) -> dict[str, Evidence]:
    """Applies each pattern alone, at one place of the random graph of this seed, and compares before and after."""
    graph, rng, found = tangle(seed), np.random.default_rng(seed), dict[str, Evidence]()
    view = View(graph, weights_of(graph, {}).arrays)
    batch = rng.uniform(*RANGE, (images, *IMAGE[1:])).astype(np.float32)
    old = site_values(graph, {}, batch)
    for pattern in PATTERNS:
        answers = [(node, pattern.answer(view, node)) for node in graph.nodes]
        changes = [(node, answer) for node, answer in answers if isinstance(answer, Change)]
        reasons = tuple(answer for _, answer in answers if isinstance(answer, str))
        found[pattern.name] = Evidence(reasons)
        if changes:
            node, change = changes[rng.integers(len(changes))]
            ulps = CERTIFICATES[pattern.name].ulps
            both = _compare(view, old, view.apply(node, change), batch, node, ulps)
            found[pattern.name] = Evidence(reasons, 1, *both)
    return found


def examine_integers(seed: int, images: int = 2) -> dict[str, Evidence]:
    """As `examine` for the patterns that claim bit-equality, on int8 programs with one scale for all tensors."""
    graph, rng, found = tangle(seed, integers=True), np.random.default_rng(seed), dict[str, Evidence]()
    view = View(graph, weights_of(graph, {}).arrays)
    batch = rng.integers(-128, 128, (images, *IMAGE[1:])).astype(np.int8)

    def outputs(view: View) -> tuple[np.ndarray, ...]:
        names = [t.name for t in view.graph.tensors if view.known(t.name) is None]
        return oracle.run(quantise(view.graph, view.weights, dict.fromkeys(names, RANGE)), [batch])

    for pattern in (p for p in PATTERNS if CERTIFICATES[p.name].integers == SHARED):
        changes = [(node, pattern.answer(view, node)) for node in graph.nodes]
        node, change = next(((n, c) for n, c in changes if isinstance(c, Change)), (None, None))
        if node and isinstance(change, Change):
            pairs = list(zip(outputs(view), outputs(view.apply(node, change)), strict=True))
            differing = sum(int((a != b).sum()) for a, b in pairs)
            found[pattern.name] = Evidence((), 1, compared=sum(a.size for a, _ in pairs), differing=differing)
    return found
