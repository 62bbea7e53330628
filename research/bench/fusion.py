"""What fusion claims and what it buys: `python -m research.bench.fusion [configs/v2.py] [--track v2] [--check]`.

Every rewrite pattern is held to its certificate on random graphs, which are then optimised in random orders.
The hand network is traced with its batch norms: the cycles each pattern saves, and everything folded and fused
against the chain (convolution, mul, add and clamp as nodes of their own) with the compiler's own grouping off;
LiteRT's latency on this CPU is measured. Bars: 15 patterns that hold, one graph whatever the order, 1.9x on
Ethos-U85-128.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from research import nets
from research.door import load
from research.graph.certificate import CERTIFICATES, SHARED, Evidence, examine, examine_integers
from research.graph.integer import quantise
from research.graph.interpret import observe
from research.graph.ir import Graph
from research.graph.program import Program
from research.graph.rewrite import PATTERNS, fold_constants_only, optimise
from research.graph.runtime import time_tflite
from research.graph.tangles import tangle
from research.graph.trace import trace
from research.graph.weights import Params
from research.graph.write import write
from research.npu import U85_128, cost, layer_table, pad, referee
from research.train.runtime import prepare_runtime

BAR_PATTERNS, BAR_RATIO = 15, 1.9
ROWS = 512  # of a layer table, so that the cost is compiled once; larger networks are not simulated
CHAIN = ("drop_dead", "drop_identity", "merge_reshapes", "fold_constants", "merge_constants")


def holds(pattern: str, seen: Iterable[Evidence]) -> bool:
    """Whether a pattern was used, stayed within its claims, and its integers were compared where it claims them."""
    found = list(seen)
    kept = all(e.error <= e.allowed and e.differing == 0 for e in found)
    compared = CERTIFICATES[pattern].integers != SHARED or any(e.compared for e in found)
    return kept and compared and any(e.uses for e in found)


def orders_differing(graphs: int, tries: int = 3) -> int:
    """How often a random graph has another hash when patterns and nodes are tried in a random order."""
    differing = 0
    for seed in range(graphs):
        graph = tangle(seed)
        wanted = optimise(graph, {})[0].hash
        for number in range(tries):
            rng = np.random.default_rng([seed, number])
            tried = [PATTERNS[i] for i in rng.permutation(len(PATTERNS))]
            differing += optimise(graph, {}, tried, rng)[0].hash != wanted
    return differing


def network(spec: nets.HandNet, seed: int = 0) -> tuple[Graph, dict[str, Any], np.ndarray]:
    """The network of a spec, traced with its batch norms; random weights and statistics; two images."""
    rng = np.random.default_rng(seed)

    def filled(like: jax.ShapeDtypeStruct) -> np.ndarray:
        spread = (2 / prod(like.shape[:-1])) ** 0.5
        kernel = len(like.shape) > 1
        values = rng.normal(0, spread, like.shape) if kernel else rng.uniform(0.5, 1.5, like.shape)
        return values.astype(np.float32)

    variables = dict(zip(("params", "norm_stats"), jax.tree.map(filled, nets.shapes(spec)), strict=True))

    def head(v: Any, image: jax.Array) -> jax.Array:
        return nets.forward(spec, v["params"], v["norm_stats"], image[..., 0], formulation="canonical").taps[
            "head"
        ]

    images = rng.uniform(size=(2, spec.size_px, spec.size_px, 1)).astype(np.float32)
    return trace(head, variables, images[:1]), variables, images


def int8(graph: Graph, params: Params, images: np.ndarray) -> bytes:
    """The graph as an int8 file, ranges from the images [N, H, W, C]. ValueError where it has no int8 form."""
    constants = {n.output for n in graph.nodes if n.op == "constant"}
    ranges = {t: r for t, r in observe(graph, params, images).items() if t not in constants}
    return write(quantise(graph, params, ranges))


def cycles(graph: Graph, params: Params, images: np.ndarray) -> dict[str, float]:
    """Cycles on Ethos-U85-128, "simulated" and by the "referee"; without the one that cannot take the graph."""
    found = {}
    with contextlib.suppress(ValueError):
        found["simulated"] = float(cost(pad(layer_table(graph), ROWS), U85_128).cycles.sum())
    with contextlib.suppress(ValueError, RuntimeError):
        found["referee"] = referee(int8(graph, params, images), U85_128).cycles
    return found


def bought(graph: Graph, params: Params, images: np.ndarray) -> dict[str, dict[str, float]]:
    """{pattern: what leaving it out alone costs} for the patterns that the network uses: nodes and cycles more."""
    full, weights, report = optimise(graph, params)
    uses, whole, found = Counter(a.pattern for a in report.applied), cycles(full, weights, images), {}
    for name, count in tqdm(uses.items(), desc="leave one out", disable=None):
        less, weights, _ = optimise(graph, params, [p for p in PATTERNS if p.name != name])
        part = cycles(less, weights, images)
        more = {kind: part[kind] - whole[kind] for kind in part if kind in whole}
        found[name] = {"uses": count, "nodes": len(less.nodes) - len(full.nodes), **more}
    return found


def compare(graph: Graph, params: Params, images: np.ndarray, rounds: int) -> dict[str, float]:
    """Folded and fused against the chain: ms by the referee, measured ms in LiteRT (medians), and their ratios.

    "written" is the network as traced, its constants computed; in "chain" a norm is one mul and one add.
    """
    chain = optimise(graph, params, [p for p in PATTERNS if p.name in CHAIN])
    forms = {"written": fold_constants_only(graph, params), "chain": chain, "fused": optimise(graph, params)}
    files = {name: int8(form[0], form[1], images) for name, form in forms.items()}
    out = {f"{name}_ms": referee(file, U85_128, ("Grouping",)).ms for name, file in files.items()}
    grouped = {name: referee(file, U85_128).ms for name, file in files.items()}
    out |= {
        "ratio": out["chain_ms"] / grouped["fused"],
        "ratio_written": out["written_ms"] / grouped["fused"],
    }
    out |= {"ratio_grouped": grouped["chain"] / grouped["fused"], "fused_ms": grouped["fused"]}
    floats = {f"{name}_float": write(Program(*form[:2])) for name, form in forms.items()}
    cpu = {name: statistics.median(ms) for name, ms in time_tflite(files | floats, rounds=rounds).items()}
    ratios = {
        f"cpu_ratio{kind or '_int8'}": cpu[f"chain{kind}"] / cpu[f"fused{kind}"] for kind in ("", "_float")
    }
    return out | {f"cpu_{name}_ms": ms for name, ms in cpu.items()} | ratios


def failures(held: Mapping[str, bool], differing: int, ratio: float) -> list[str]:
    """What falls short of the bars, one line each."""
    missed = [f"{name}: its certificate does not hold" for name, holding in held.items() if not holding]
    count = sum(held.values())
    missed += [f"{count} patterns hold, at least {BAR_PATTERNS}"] if count < BAR_PATTERNS else []
    missed += [f"{differing} random orders gave another graph, none may"] if differing else []
    return missed + ([f"fused {ratio:.2f}x, at least {BAR_RATIO}x"] if ratio < BAR_RATIO else [])


def show(seen: Mapping[str, Sequence[Evidence]], worth: Mapping[str, Mapping[str, float]]) -> None:
    """Prints every pattern with its claims, what was seen of them, and what it buys in the network."""
    head = ("pattern", "float claim", "largest error", "integer claim", "differing", "uses", "refused")
    table = Table(*head, "uses in it", "nodes", "cycles (simulated)", "cycles (referee)")
    for name, certificate in CERTIFICATES.items():
        found, b = seen[name], worth.get(name, {})
        claim = f"(2 n + {certificate.ulps}) 2^-24" if certificate.ulps else "exact"
        compared, differing = sum(e.compared for e in found), sum(e.differing for e in found)
        integers = f"{differing} of {compared:,}" if certificate.integers == SHARED else ""
        error, uses = f"{max(e.error for e in found):.1e}", str(sum(e.uses for e in found))
        gains = [f"{b[k]:+,.0f}" if k in b else "" for k in ("nodes", "simulated", "referee")]
        refused = str(sum(len(e.reasons) for e in found))
        row = (
            name,
            claim,
            error,
            certificate.integers,
            integers,
            uses,
            refused,
            f"{b.get('uses', 0):g}",
            *gains,
        )
        table.add_row(*row)
    reasons = Table("pattern", "refused because", "times")
    for name, found in seen.items():
        for reason, times in Counter(r for e in found for r in e.reasons).most_common():
            reasons.add_row(name, reason, str(times))
    Console(width=180).print(table, reasons)


def main(argv: list[str] | None = None) -> int:
    """Prints the tables and the JSON line; 1 with --check when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.fusion", description=__doc__)
    parser.add_argument("config", nargs="?", default="configs/v2.py")
    parser.add_argument("--track", default="v2", help="whose network is traced")
    parser.add_argument("--graphs", type=int, default=100, help="random graphs for certificates and orders")
    parser.add_argument("--rounds", type=int, default=15, help="of the CPU measurement")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    args = parser.parse_args(argv)
    prepare_runtime()
    seen: dict[str, list[Evidence]] = {p.name: [] for p in PATTERNS}
    for seed in tqdm(range(args.graphs), desc="certificates", disable=None):
        for name, evidence in (*examine(seed).items(), *examine_integers(seed).items()):
            seen[name].append(evidence)
    differing = orders_differing(args.graphs)
    traced = network(load(args.config).tracks[args.track].net)
    show(seen, bought(*traced))
    found = compare(*traced, args.rounds)
    held = {name: holds(name, evidence) for name, evidence in seen.items()}
    missed = failures(held, differing, found["ratio"])
    figures = {"patterns": sum(held.values()), "orders_differing": differing}
    rounded = {name: round(value, 4) for name, value in found.items()}
    print(json.dumps({"bench": "fusion", **figures, **rounded, "missed": missed}))
    return 1 if args.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
