"""What do integers cost? `python -m research.bench.int8_error [--run runs/v2] [--check]`.

A network of a finished run is quantised by every recipe (calibration x bias correction x equalisation) from half of
the calibration images. The recipe whose outputs are nearest to the float network on the other half is chosen; its
error on the test set is the result. Bar: at most 0.5 % above the float error. A table says what each tensor loses.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from research import nets
from research.data.rendered_hands import prepare_test_set, read_test_set
from research.door import find_arm, load
from research.graph.calibrate import MeanSquare, Method, MinMax, Percentile, calibrate, channel_statistics
from research.graph.calibrate import correct_empirically as corrected
from research.graph.equalise import equalise
from research.graph.exact import values
from research.graph.integer import quantise
from research.graph.interpret import site_values
from research.graph.ir import Graph
from research.graph.program import Program
from research.graph.weights import Params
from research.graph.write import write
from research.pytrees import flatten
from research.spec import Experiment
from research.squeeze import Variables, fold
from research.train.evaluate import predict, predict_tflite
from research.train.fit import finished, fit
from research.train.measure import calibration_images
from research.train.runtime import prepare_runtime
from research.train.setting import graph_of

Recipe = tuple[str, str, bool]  # method, bias correction, equalised
BAR = 0.005
METHODS: dict[str, Method] = {"min-max": MinMax(), "99.99 %": Percentile(99.99), "mean square": MeanSquare()}
CORRECTIONS = ("none", "analytic", "empirical")
RECIPES = tuple(product(METHODS, CORRECTIONS, (False, True)))
RESAMPLES, SEED = 2000, 0
LOOKED_AT = 64  # test images of the table of tensors


def cook(graph: Graph, params: Params, images: np.ndarray, recipe: Recipe) -> Program:
    """The integer program one recipe makes of the float network and images [N, H, W, C]."""
    method, correction, equal = recipe
    if equal:
        params, _ = equalise(graph, params, channel_statistics(graph, params, images).peaks)
    means = channel_statistics(graph, params, images).means if correction == "analytic" else None
    program = quantise(graph, params, calibrate(graph, params, images, METHODS[method]), means=means)
    return corrected(program, images) if correction == "empirical" else program


def sqnr_db(graph: Graph, program: Program, images: np.ndarray) -> dict[str, float]:
    """Signal to quantisation noise of every tensor of the float graph, in dB: exact integers against its weights."""
    real = {name: np.asarray(v, np.float64) for name, v in site_values(graph, program.params, images).items()}
    got = values(program, [program.scales[graph.inputs[0]].quantise(images)])
    noise = {n: np.square(v - program.scales[n].real(np.asarray(got[n]))).sum() for n, v in real.items()}
    return {n: float(10 * np.log10(np.square(v).sum() / max(noise[n], 1e-30))) for n, v in real.items()}


def interval(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of mean(ours) / mean(theirs) - 1 over images, [N] each."""
    picks = np.random.default_rng(SEED).integers(0, len(ours), (RESAMPLES, len(ours)))
    low, high = np.quantile(ours[picks].mean(1) / theirs[picks].mean(1) - 1, (0.025, 0.975))
    return float(low), float(high)


def measure(exp: Experiment, arm: str, run: Path, recipes: Sequence[Recipe] = RECIPES) -> dict[str, Any]:
    """The float error, one entry a recipe, the chosen one and its tensors. ValueError without a finished run."""
    chosen = find_arm(exp, arm)
    if not finished(exp, chosen, run):
        raise ValueError(
            f"no finished run of {chosen.name!r} in {run}: `make reproduce` makes one (or --run DIR)"
        )
    done = fit(exp, chosen, run)
    net, folded, _ = fold(nets.NORM_EPSILON)(done.net, Variables(done.params, done.norm_stats), None)
    params, graph = flatten(folded.params), graph_of(done.net)
    images, truth = read_test_set(prepare_test_set(exp.data, exp.seed, run / "data"))
    seen, held = calibration_images(exp)[::2], calibration_images(exp)[1::2]

    def off(predicted: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        return np.asarray(np.linalg.norm(predicted - wanted, axis=-1).mean(-1) * net.size_px, np.float64)

    real, real_held = (predict(net, folded.params, {}, some) for some in (images, held))
    as_float, found, programs = off(real, truth), list[dict[str, Any]](), list[Program]()
    for recipe in tqdm(recipes, desc="recipes", disable=None):
        programs.append(cook(graph, params, seen[..., None], recipe))
        model = write(programs[-1])
        error = off(predict_tflite(model, images), truth)
        entry = dict(zip(("method", "correction", "equalised"), recipe, strict=True))
        entry["held_out_px"] = float(off(predict_tflite(model, held), real_held).mean())
        entry |= {"error_px": float(error.mean()), "relative": float(error.mean() / as_float.mean() - 1)}
        found.append(entry | {"interval": interval(error, as_float)})
    best = min(range(len(found)), key=lambda i: found[i]["held_out_px"])
    tensors = sqnr_db(graph, programs[best], images[:LOOKED_AT, ..., None])
    result = {"network": chosen.name, "images": len(images), "float_px": float(as_float.mean())}
    return result | {"recipes": found, "chosen": found[best], "sqnr_db": tensors}


def failures(found: dict[str, Any]) -> list[str]:
    """What misses the bar, in words."""
    relative = found["chosen"]["relative"]
    return [f"int8 error {relative:+.2%} of float, at most {BAR:.1%}"] if relative > BAR else []


def main(argv: list[str] | None = None) -> int:
    """Prints the tables and the JSON line; 1 without a finished run, and with --check when the bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.int8_error", description=__doc__)
    parser.add_argument("config", nargs="?", default="configs/v2.py")
    parser.add_argument("--run", type=Path, help="folder of a finished run (runs/<name of the config>)")
    parser.add_argument("--arm", default="", help="a network of the run (the target with every link)")
    parser.add_argument("--check", action="store_true", help="exit 1 when the bar is missed")
    args = parser.parse_args(argv)
    prepare_runtime()
    try:
        found = measure(load(args.config), args.arm, args.run or Path("runs") / Path(args.config).stem)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print_tables(found)
    missed = failures(found)
    print(json.dumps({"bench": "int8_error", **found, "missed": missed}))
    return 1 if args.check and missed else 0


def print_tables(found: dict[str, Any]) -> None:
    """The recipes, and the tensors under the chosen one."""
    title = f"{found['network']}: float {found['float_px']:.3f} px on {found['images']} test images, measured"
    caption = "held out: px from the float outputs on calibration images; 95 %: bootstrap over images"
    columns = "ranges", "bias", "equalised", "held out", "int8 px", "to float", "95 %"
    table = Table(*columns, title=title, caption=caption)
    for row in found["recipes"]:
        low, high = row["interval"]
        cells = (
            row["method"],
            row["correction"],
            "yes" if row["equalised"] else "no",
            f"{row['held_out_px']:.3f}",
        )
        numbers = f"{row['error_px']:.3f}", f"{row['relative']:+.2%}", f"{low:+.2%} {high:+.2%}"
        table.add_row(*cells, *numbers, style="bold" if row == found["chosen"] else "")
    tensors = Table("tensor", "SQNR dB", title="the chosen recipe by tensor, exact integers against float")
    for name, decibel in found["sqnr_db"].items():
        tensors.add_row(name, f"{decibel:.1f}")
    Console(width=100).print(table, tensors)


if __name__ == "__main__":
    sys.exit(main())
