"""How faithful the NPU's price is: `python -m research.bench.fidelity --seed N [--chips u85-128 ...] [--check]`.

Networks, single layers and single edits are made afresh from the seed (`population` states their ranges) and
labelled by Arm's compiler on the spot. Two faces are judged: the exact planner `plan` and the jitted `cost` at
corners (whole widths, weights as they are), beside MACs alone and a regression on 5 features, both fitted on
other networks than they are judged on. The compiler's switches are judged by the ratio of cycles without and
with: `FMStaging` in the memory mode Dedicated_Sram, all else in the chip's own; `Grouping` does nothing on a chip
that chains no additions, `FMStaging` nothing in Shared_Sram, and both must be told so. Cycles of operations left
to the CPU are not compared, for the compiler counts none. `--worst 20` lists where the planner is furthest off.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research.bench import agreement, population, pricing
from research.bench.bars import ABLATION_PERCENT, KIND_SHARE, LEAST_CHANGE, SPEEDUP_GAP, failures
from research.bench.fidelity_text import show, show_worst
from research.bench.labels import labels, shown
from research.bench.pricing import Priced
from research.bench.recipes import Made, Recipe, make, without_2_4
from research.npu import Chip, Network, Verdict, find_chip, known_chips, read_network
from research.train.record import write_json
from research.train.runtime import prepare_runtime

CHIPS = ("u55-128", "u55-256", "u85-128", "u85-256", "u85-512")
RESULT = Path("configs/results/bench/fidelity.json")
_NO_OP_NETWORKS = 10  # that are enough to see that a switch does nothing


class Case(NamedTuple):
    """A file and its reading."""

    made: Made
    network: Network


class Sample(NamedTuple):
    """What is compared: networks; those with 2:4 layers once more with dense ones, by index; single layers and their
    kinds; edited networks, with the index of the network each was and the kind of edit."""

    networks: list[Case]
    dense: dict[int, Case]
    layers: list[Case]
    layer_kinds: list[str]
    edits: list[Case]
    edit_of: list[tuple[int, str]]


class Court(NamedTuple):
    """Who judges: the processes that do it (None: this one) and a folder of earlier verdicts (None: no such)."""

    pool: Executor | None = None
    cache: Path | None = None

    def verdicts(self, cases: Sequence[Case], chip: Chip, what: str, without: str = "") -> list[Verdict]:
        """The compiler's verdict of every case."""
        models, switches = [case.made.model for case in cases], (without,) if without else ()
        return labels(models, chip, what, switches, cache=self.cache, pool=self.pool)

    def prices(self, face: str, cases: Sequence[Case], chip: Chip, without: str = "") -> list[Priced]:
        """The price that a face, "plan" or "cost", gives every case."""
        networks = [case.network for case in cases]
        if face == "plan":
            return pricing.plan_all(networks, chip, without, pool=self.pool)
        return pricing.price_all(networks, chip, without)


def build(job: tuple[Recipe, int, float]) -> Case:
    """The file of a recipe with weights of this seed and spread, and its reading."""
    made = make(*job)
    return Case(made, read_network(made.model))


def sample(seed: int, networks: int, layers: int, edits: int, pool: Executor | None = None) -> Sample:
    """Everything that is labelled and priced, from the seed alone."""
    found = population.networks(seed, networks)
    sparse = [i for i, (recipe, _, _) in enumerate(found) if any(layer.zeros == "2:4" for layer in recipe)]
    twins = [(without_2_4(found[i][0]), *found[i][1:]) for i in sparse]
    single, layer_kinds = list[tuple[Recipe, int, float]](), list[str]()
    for number in range(layers):
        own = int(np.random.SeedSequence([seed, 1, number]).generate_state(1)[0])
        recipe, kind, spread = population.random_layer(own)
        single.append((recipe, own, spread))
        layer_kinds.append(kind)
    edited, edit_of = list[tuple[Recipe, int, float]](), list[tuple[int, str]]()
    rng = np.random.default_rng([seed, 2])
    for attempt in range(20 * edits):
        if len(edited) == edits:
            break
        index = attempt % len(found)
        kind = population.EDITS[(attempt + attempt // len(found)) % len(population.EDITS)]
        changed = population.edit(found[index][0], kind, rng)
        if changed is not None:
            edited.append((changed, *found[index][1:]))
            edit_of.append((index, kind))
    cases = list(shown(build, [*found, *twins, *single, *edited], "networks, layers and edits", pool))
    parts = np.cumsum([len(found), len(twins), len(single)]).tolist()
    first, second, third, fourth = (
        cases[a:b] for a, b in zip([0, *parts], [*parts, len(cases)], strict=True)
    )
    return Sample(first, dict(zip(sparse, second, strict=True)), third, layer_kinds, fourth, edit_of)


def network_figures(prices: Sequence[Priced], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Agreement over whole networks [N], with 95 % intervals, and of the SRAM peak."""
    ours, true = np.array([p.total for p in prices]), np.array([v.cycles for v in verdicts])
    figures: dict[str, Any] = {"mape_percent": agreement.mape_percent(ours, true)}
    figures["mape_interval"] = agreement.interval(agreement.mape_percent, ours, true)
    figures["tau"] = agreement.kendall_tau(ours, true)
    figures["tau_interval"] = agreement.interval(agreement.kendall_tau, ours, true)
    figures["bias_percent"] = float(np.mean(ours / true - 1) * 100)
    figures["worst_percent"] = float(np.max(np.abs(ours / true - 1)) * 100)
    error = np.abs(np.array([p.sram_kb for p in prices]) / np.array([v.sram_kb for v in verdicts]) - 1) * 100
    figures["sram_error_percent"] = float(error.mean())
    figures["sram_error_median_percent"] = float(np.median(error))
    return figures | {
        "sram_within_share": float(np.mean(error <= 5)),
        "sram_worst_percent": float(error.max()),
    }


def baseline_figures(networks: Sequence[Network], true: np.ndarray) -> dict[str, float]:
    """What MACs alone and 5 features make of the same networks; `true` [N] cycles."""
    rows, out = np.stack([agreement.features(n.table) for n in networks]), dict[str, float]()
    for name, baseline in (("macs_only", agreement.macs_only), ("regression", agreement.regression)):
        guess = baseline(rows, true)
        out[f"{name}_mape_percent"] = agreement.mape_percent(guess, true)
        out[f"{name}_tau"] = agreement.kendall_tau(guess, true)
    return out


def layer_figures(
    kinds: Sequence[str], verdicts: Sequence[Verdict], prices: Sequence[Priced]
) -> dict[str, tuple[int, float, float]]:
    """{kind: (layers, median, mean error in percent)} of the layer called "layer"; of its whole network where it
    runs inside another one."""
    errors: dict[str, list[float]] = {}
    for kind, verdict, price in zip(kinds, verdicts, prices, strict=True):
        ours = price.cycles_of("layer")
        theirs = next((one.cycles for one in verdict.layers if one.name == "layer"), 0.0)
        if min(ours, theirs) <= 0:
            ours, theirs = price.total, verdict.cycles
        errors.setdefault(kind, []).append(abs(ours - theirs) / theirs * 100)
    return {k: (len(e), float(np.median(e)), float(np.mean(e))) for k, e in sorted(errors.items())}


def edit_figures(
    before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]
) -> dict[str, float]:
    """Sign and rank agreement of changes in cycles; each (ours, theirs) [N], before and after the edit."""
    predicted, true = after[0] - before[0], after[1] - before[1]
    least = LEAST_CHANGE * before[1]
    share, rank = agreement.sign_share(predicted, true, least), agreement.spearman(predicted, true)
    counted = int((np.abs(true) > least).sum())
    return {"edits": len(true), "counted": counted, "sign_share": share, "spearman": rank}


def ablation_figures(ours: np.ndarray, theirs: np.ndarray, *, expected: bool) -> dict[str, float]:
    """How well the effect of a switch is foretold: ratios of cycles [N] without and with the feature."""
    error = np.abs(ours / theirs - 1) * 100
    return {
        "networks": len(ours), "expected": expected, "mean_effect": float(theirs.mean()),
        "largest_effect": float(np.abs(theirs - 1).max() + 1), "error_mean_percent": float(error.mean()),
        "error_worst_percent": float(error.max()), "within_share": float(np.mean(error <= ABLATION_PERCENT)),
    }  # fmt: skip


def measure(found: Sample, chip: Chip, faces: Sequence[str], court: Court) -> dict[str, Any]:
    """All figures of one chip: {"baselines": ..., "faces": {face: ...}}."""
    verdicts = court.verdicts(found.networks, chip, "networks")
    single = court.verdicts(found.layers, chip, "layers")
    edited = court.verdicts(found.edits, chip, "edits")
    index = sorted(found.dense) if chip.sparse_2_4 else []
    twins = [found.dense[i] for i in index]
    slow = court.verdicts(twins, chip, "dense twins")
    true = np.array([v.cycles for v in verdicts])
    networks = [case.network for case in found.networks]
    figures: dict[str, Any] = {"baselines": baseline_figures(networks, true), "faces": {}}
    for face in faces:
        price = partial(court.prices, face, chip=chip)
        prices, layers = price(found.networks), price(found.layers)
        ours = np.array([p.total for p in prices])
        own = network_figures(prices, verdicts)
        own["layers"] = layer_figures(found.layer_kinds, single, layers)
        both = [*networks, *(case.network for case in found.layers)]
        if face == "plan":
            agree = pricing.plans_agree([*prices, *layers], [*verdicts, *single])
        else:
            agree = pricing.blocks_agree(both, [*verdicts, *single], chip)
        own |= {"layers_compared": agree.layers, "macs_exact_share": agree.macs, "blocks_share": agree.blocks}
        if twins:
            guess = np.array([p.total for p in price(twins)])
            gap = np.abs(guess / ours[index] - np.array([v.cycles for v in slow]) / true[index])
            own |= {"speedup_networks": len(index), "speedup_gap_mean": float(gap.mean())}
            own |= {"speedup_within": float(np.mean(gap <= SPEEDUP_GAP)), "speedup_gap_max": float(gap.max())}
        if found.edits:
            after = np.array([p.total for p in price(found.edits)]), np.array([v.cycles for v in edited])
            base, kinds = np.array([i for i, _ in found.edit_of]), np.array([k for _, k in found.edit_of])
            picks = {"": np.full(len(kinds), True)} | {k: kinds == k for k in sorted(set(kinds.tolist()))}
            by_kind = {
                k: edit_figures((ours[base[p]], true[base[p]]), (after[0][p], after[1][p]))
                for k, p in picks.items()
            }
            own["edits"], own["edits_by_kind"] = by_kind.pop(""), by_kind
        own["ablations"] = {}
        figures["faces"][face] = own
    for name, where, cases, expected in _ablations(found, chip):
        if name == "FMStaging" and "plan" not in faces:
            continue  # the relaxed cost has no such variable
        same = where == chip
        theirs = np.array([v.cycles for v in court.verdicts(cases, where, f"without {name}", name)])
        base = (
            true[: len(cases)]
            if same
            else np.array([v.cycles for v in court.verdicts(cases, where, "networks")])
        )
        for face in faces:
            if face == "cost" and name == "FMStaging":
                continue
            without, with_it = (
                np.array([p.total for p in court.prices(face, cases, where, off)]) for off in (name, "")
            )
            said = name if same else f"{name} in {where.memory_mode}"
            effect = ablation_figures(without / with_it, theirs / base, expected=expected)
            figures["faces"][face]["ablations"][said] = effect
    return figures


def _ablations(found: Sample, chip: Chip) -> Iterator[tuple[str, Chip, list[Case], bool]]:
    """(the compiler's switch, the chip as it is then, networks, whether it does anything there)."""
    if chip.sparse_2_4:
        yield "Sparsity", chip, found.networks, True
    yield "Grouping", chip, found.networks, chip.chains_adds
    yield "WeightBuffering", chip, found.networks, True
    yield "FMStaging", chip, found.networks[:_NO_OP_NETWORKS], False
    yield "FMStaging", dataclasses.replace(chip, memory_mode="Dedicated_Sram"), found.networks, True


def rare_kinds(networks: Sequence[Made]) -> list[str]:
    """Operations that are in too few of the networks."""
    counted = Counter(kind for made in networks for kind in population.kinds(made))
    few = {
        kind: counted[kind] for kind in sorted(population.KINDS) if counted[kind] < KIND_SHARE * len(networks)
    }
    return [f"{kind} is in {n} of {len(networks)} networks" for kind, n in few.items()]


def rounded(value: Any) -> Any:
    """The same figures with 4 digits after the point."""
    if isinstance(value, bool | str | int):
        return value
    if isinstance(value, Mapping):
        return {k: rounded(v) for k, v in value.items()}
    return round(float(value), 4) if isinstance(value, float) else [rounded(v) for v in value]


@contextlib.contextmanager
def processes(count: int) -> Iterator[Executor | None]:
    """`count` processes that start afresh; none, and all is done in this one, for a count below 2."""
    if count < 2:
        yield None
        return
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def chips_of(names: Sequence[str]) -> list[Chip]:
    """The Ethos-U chips of these names. ValueError, one line, for an unknown name or a chip without a compiler."""
    found = [find_chip(name) for name in names]
    foreign = [name for name, chip in zip(names, found, strict=True) if not isinstance(chip, Chip)]
    if foreign:
        raise ValueError(f"the compiler knows no {foreign[0]!r}: it judges Ethos-U chips only")
    return [chip for chip in found if isinstance(chip, Chip)]


def main(argv: list[str] | None = None) -> int:
    """Prints the tables and the JSON line; 1 with --check when a bar is missed, 2 for arguments that do not fit."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.fidelity", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--layers", type=int, default=500)
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument(
        "--chips", nargs="+", help=f"names of `python -m research.npu chips`; {', '.join(CHIPS)}"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cache", type=Path, help="a folder of verdicts to keep and to take up again")
    parser.add_argument(
        "--worst", type=int, default=0, help="only list so many layers and networks furthest off"
    )
    parser.add_argument("--write", action="store_true", help=f"write {RESULT}")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    args = parser.parse_args(argv)
    prepare_runtime()
    known = [name for name in CHIPS if name in known_chips()]
    try:
        if args.networks < 1:
            raise ValueError(f"at least one network is needed, got --networks {args.networks}")
        chips = chips_of(args.chips or (["u85-128"] if args.worst else known))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    faces = ["plan", "cost"] if pricing.has_planner() else ["cost"]
    figures: dict[str, Any] = {}
    with processes(args.processes) as pool:
        court = Court(pool, args.cache)
        found = sample(args.seed, args.networks, args.layers, 0 if args.worst else args.edits, pool)
        if args.worst:
            for chip in chips:
                cases = [*found.networks, *found.layers]
                verdicts = court.verdicts(cases, chip, "all")
                prices = court.prices(faces[0], cases, chip)
                show_worst(faces[0], [c.network for c in cases], verdicts, prices, args.worst, args.networks)
            return 0
        missed = rare_kinds([case.made for case in found.networks]) if args.networks >= 100 else []
        missed += [f"no chip {name!r} is described" for name in CHIPS if name not in known and not args.chips]
        for chip in chips:
            figures[chip.name] = measure(found, chip, faces, court)
            show(chip.name, figures[chip.name])
            missed += failures(chip.name, figures[chip.name])
    said = {
        "bench": "fidelity",
        "seed": args.seed,
        "networks": len(found.networks),
        "layers": len(found.layers),
    }
    said |= {"edits": len(found.edits), "chips": rounded(figures), "missed": missed}
    if args.write:
        write_json(RESULT, said)
    print(json.dumps(said))
    return 1 if args.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
