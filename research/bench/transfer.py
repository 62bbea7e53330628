"""Recipes compared: every point of a config's sweep trained alike, then judged on renders, and on hands of yours.

    python -m research.bench.transfer configs/transfer.py [field=value ...] [--eval-npz FILE] [--peers DIR] [--save]

Rows of MediaPipe's networks are marked "peer": measured by the same metric on the same images, not trained here.
Unfinished work is gone on with. Ends with one line of JSON; `--check` exits 1 where the full peer misses `BAR` on
our renders, which then do not look like hands to a network that knows real ones.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from research import spec
from research.data.mediapipe import landmarks, load_peer
from research.data.npz import read_npz
from research.data.stream import held_out_set
from research.door import fingerprint
from research.graph import parameter_count
from research.npu import layer_table
from research.report.hands_page import hands_page
from research.spec import Experiment, Named
from research.train import record
from research.train.arms import full
from research.train.evaluate import errors, predict, predict_tflite
from research.train.fit import fit
from research.train.ledger import check_experiment
from research.train.measure import price_network, ship
from research.train.progress import Reporter
from research.train.runtime import prepare_runtime

BAR = 0.05
PEERS = ("full", "lite")
Hands = tuple[np.ndarray, np.ndarray]


def title_of(point: Mapping[str, Any]) -> str:
    """A recipe's name: what it changes, without the way there."""
    words = [f"{'.'.join(path.split('.')[-2:])}={value}" for path, value in point.items()]
    return ", ".join(words) or "as it is"


def recipes(
    config: str | Path, overrides: Sequence[str], smoke: bool = False
) -> list[tuple[str, Experiment]]:
    """`(title, experiment)` of every point of a config's sweep. Errors as `spec.load` and `spec.override`."""
    made = []
    for point in spec.config_module(config).sweep():
        exp = spec.load(config)
        exp = exp.smoke() if smoke else exp
        for path, value in [*point.items(), *map(spec.parse_override, overrides)]:
            exp = spec.override(exp, path, value)
        check_experiment(exp)
        made.append((title_of(point), exp))
    return made


def judged(exp: Experiment, workdir: Path, own: Path | None, reporter: Reporter) -> dict[str, Any]:
    """A trained recipe's figures: `float` and `int8` on its test renders, `npz` of its int8 file, macs, params.

    Its int8 file, `net.tflite`, and its keypoints on the test set, `seen.npy`, stay in `workdir`.
    """
    record.claim(workdir, exp)
    outcome = fit(exp, full(exp), workdir, devices=1, reporter=reporter)
    images, truth = held_out_set(exp.data, exp.seed, workdir / "data")
    model, _, _ = ship(exp, outcome)
    record.write_bytes(workdir / "net.tflite", model)
    seen = predict_tflite(model, images)
    priced = price_network(outcome.net, exp.new_chip, Named())
    found = {
        "kind": "ours",
        "float": errors(
            predict(outcome.net, outcome.params, outcome.norm_stats, images), truth, exp.data.size_px
        ),
        "int8": errors(seen, truth, exp.data.size_px),
        "macs": priced["macs"],
        "params": priced["params"],
        "ms_simulated": priced["ms_simulated"],
    }
    if own is not None:
        photos, labels = read_npz(own, exp.data.size_px)
        found["npz"] = errors(predict_tflite(model, photos), labels, exp.data.size_px)
    np.save(workdir / "seen.npy", seen)
    return found


def peer_row(folder: Path, name: str, test: Hands, own: Hands | None) -> dict[str, Any]:
    """What MediaPipe's network `name` reaches on the same images. Errors as `load_peer`."""
    peer = load_peer(folder, name)
    side = test[0].shape[1]
    found = {
        "kind": "peer",
        "float": errors(landmarks(peer, test[0]).keypoints, test[1], side),
        "macs": float(layer_table(peer.graph).macs),
        "params": float(parameter_count(peer.graph)),
    }
    if own is not None:
        found["npz"] = errors(landmarks(peer, own[0]).keypoints, own[1], side)
    return found


def failures(found: Mapping[str, Any]) -> list[str]:
    """What misses the bar, in words."""
    return [
        f"{row['name']} finds our renders at {row['float']['error_box']:.3f} of the box, at most {BAR}"
        for row in found["rows"]
        if row["name"] == "MediaPipe full" and row["float"]["error_box"] > BAR
    ]


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as a table."""
    table = Table(
        "recipe", "", "MMACs", "k params", "float", "int8", "PCK@.1", "npz", title="error / box, measured"
    )
    for row in rows:
        best = row.get("int8", row["float"])
        int8 = f"{row['int8']['error_box']:.4f}" if "int8" in row else "-"
        npz = f"{row['npz']['error_box']:.4f}" if "npz" in row else "-"
        size = f"{row['macs'] / 1e6:.1f}", f"{row['params'] / 1e3:.0f}"
        table.add_row(
            row["name"],
            row["kind"],
            *size,
            f"{row['float']['error_box']:.4f}",
            int8,
            f"{best['pck_10']:.3f}",
            npz,
        )
    Console(width=120).print(table)


def main(argv: list[str] | None = None) -> int:
    """Prints table and JSON line; 1 for bad input, and with --check where the bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.transfer", description=__doc__)
    parser.add_argument("config", nargs="?", default="configs/transfer.py")
    parser.add_argument("overrides", nargs="*", metavar="field.field=value")
    parser.add_argument("--workdir", type=Path, help="default: runs/<name of the config>")
    parser.add_argument("--eval-npz", type=Path, metavar="FILE", help="judge every row on hands of yours too")
    parser.add_argument(
        "--peers", type=Path, metavar="DIR", help="add rows of MediaPipe's networks from here"
    )
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--save", action="store_true", help="write configs/results/<name of the config>.json")
    parser.add_argument("--check", action="store_true", help="exit 1 when the bar is missed")
    args = parser.parse_intermixed_args(argv)
    prepare_runtime()
    try:
        found = measure(args)
    except (ValueError, KeyError, TypeError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print_table(found["rows"])
    missed = failures(found)
    print(json.dumps({"bench": "transfer", **found, "missed": missed}))
    if args.save:
        record.write_json(Path(args.config).parent / "results" / f"{Path(args.config).stem}.json", found)
    return 1 if args.check and missed else 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The rows of a command line, and the gallery of every recipe on the test renders, `hands.html`."""
    asked = recipes(args.config, args.overrides, args.smoke)
    workdir = args.workdir or Path("runs") / (Path(args.config).stem + ("-smoke" if args.smoke else ""))
    first = asked[0][1]
    own = read_npz(args.eval_npz, first.data.size_px) if args.eval_npz else None
    rows, seen = [], {}
    for title, exp in asked:
        folder = workdir / fingerprint(exp)
        rows.append({"name": title, **judged(exp, folder, args.eval_npz, Reporter(False))})
        if exp.data == first.data:
            seen[title] = np.load(folder / "seen.npy")
    test = held_out_set(first.data, first.seed, workdir / fingerprint(first) / "data")
    if args.peers:
        rows += [{"name": f"MediaPipe {name}", **peer_row(args.peers, name, test, own)} for name in PEERS]
    page = hands_page(workdir / "hands.html", *test, seen)
    print(f"gallery: {page}", file=sys.stderr)
    stages = first.tracks[first.target].stages
    return {
        "rows": rows,
        "steps": sum(stage.steps for stage in stages),
        "seed": first.seed,
        "test_images": len(test[0]),
        "data": spec.to_json(first.data),
        "created": record.now(),
        "versions": record.versions(),
    }


if __name__ == "__main__":
    sys.exit(main())
