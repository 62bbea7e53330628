"""One network, measured: exported to int8, run in LiteRT, timed by the referee, priced by our own model.

Simulated (ours), referee (the compiler), modelled (energy) and measured (errors) stay apart by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from research import nets
from research.data.stream import batches, untaught
from research.graph import Graph, export, observe, parameter_count
from research.npu import (
    Chip,
    LayerTable,
    cost,
    energy_mj,
    layer_names,
    layer_table,
    referee,
    sparse_reason,
    sram_peak_kb,
    with_kernels,
)
from research.pytrees import flatten
from research.spec import Experiment, Named
from research.squeeze import Variables, fold
from research.train.evaluate import errors, predict, predict_tflite
from research.train.fit import Outcome
from research.train.ledger import rewrite_entry
from research.train.record import write_bytes
from research.train.setting import graph_of, priced_table

Tree = Any
FOLD_EQUAL_TO = 1e-3


def price_network(net: Any, chip: Chip, links: Named) -> dict[str, float]:
    """Simulated price of a network spec with the price of every link applied; weights are taken as average."""
    table, _ = priced_table(net, links)
    return _priced(graph_of(net), table, chip) | {"params": float(parameter_count(graph_of(net)))}


def _priced(graph: Graph, table: LayerTable, chip: Chip) -> dict[str, float]:
    found = cost(table, chip)
    return {
        "ms_simulated": float(found.ms),
        "mj": float(energy_mj(found, jnp.sum(found.macs), chip)),
        "macs": float(table.macs),
        "sram_kb_simulated": sram_peak_kb(graph),
        "weights_kb_simulated": float(jnp.sum(found.weight_bytes)) / 1024,
    }


def ship(exp: Experiment, outcome: Outcome) -> tuple[bytes, Tree, Outcome]:
    """Folds, calibrates and exports an outcome: `(int8 .tflite, folded parameters by path, outcome with its ledger)`.

    Raises ValueError when folding changes the output beyond rounding.
    """
    rewrite = fold(nets.NORM_EPSILON)
    net, folded, report = rewrite(outcome.net, Variables(outcome.params, outcome.norm_stats), None)
    images = calibration_images(exp)
    old = predict(outcome.net, outcome.params, outcome.norm_stats, images)
    new = predict(net, folded.params, {}, images)
    report["max_difference"] = float(np.max(np.abs(old - new)))
    if not report["max_difference"] <= FOLD_EQUAL_TO:
        raise ValueError(
            f"folding changed the output by {report['max_difference']:.2g} (> {FOLD_EQUAL_TO:g})"
        )
    kernels = {path: np.asarray(leaf, np.float32) for path, leaf in flatten(folded.params).items()}
    graph = graph_of(outcome.net)
    calibrated = {"images": len(images), "ranges": "min-max", "weights": "int8 per output channel"}
    ledger = (*outcome.ledger, rewrite_entry("fold", report), rewrite_entry("quantise", calibrated))
    ranges = observe(graph, kernels, images[..., None])
    model = export(graph, kernels, ranges, {"ledger": json.dumps(ledger), "experiment": exp.name})
    return model, kernels, outcome._replace(ledger=ledger)


def calibration_images(exp: Experiment) -> np.ndarray:
    """Images `[N,S,S]` of the training distribution that no stage trains on."""
    size = exp.optim.batch
    stream = batches(untaught(exp.data), size)
    parts = [
        np.asarray(stream(exp.seed + 1, step)["image"]) for step in range(-(-exp.calibration_images // size))
    ]
    return np.concatenate(parts)[: exp.calibration_images]


def measure(
    exp: Experiment,
    name: str,
    outcome: Outcome,
    test: tuple[np.ndarray, np.ndarray],
    chips: Sequence[Chip],
    exports: Path,
) -> dict[str, Any]:
    """Everything the table says of one network, as plain JSON; the file is written to `exports/<name>.tflite`."""
    images, truth = test
    model, kernels, shipped = ship(exp, outcome)
    size_px = outcome.net.size_px
    graph = graph_of(outcome.net)
    as_float = errors(predict(outcome.net, outcome.params, outcome.norm_stats, images), truth, size_px)
    as_int8 = errors(predict_tflite(model, images), truth, size_px)
    write_bytes(exports / f"{name}.tflite", model)
    return {
        "network": name,
        "params": float(parameter_count(graph)),
        "float": as_float,
        "int8": as_int8,
        "file_kb": len(model) / 1024,
        "ledger": list(shipped.ledger),
        "chips": {chip.name: _on_chip(graph, kernels, model, chip) for chip in chips},
    }


def _on_chip(graph: Graph, kernels: Mapping[str, np.ndarray], model: bytes, chip: Chip) -> dict[str, Any]:
    own = {node.kernel: kernels[node.kernel] for node in graph.nodes if node.kernel}
    table = with_kernels(layer_table(graph), graph, own)
    cycles, verdict = np.asarray(cost(table, chip).cycles), referee(model, chip)
    judged = {layer.name: layer for layer in verdict.layers}
    layers = []
    for node, name, simulated in zip(graph.nodes, layer_names(graph), cycles, strict=True):
        layer = judged.get(name)  # None: chained into the layer before it, or free
        kernel = own[node.kernel] if node.kernel else None
        layers.append(
            {
                "name": name,
                "op": node.op,
                "cycles_simulated": float(simulated),
                "cycles_referee": layer.cycles if layer else 0.0,
                "weight_format": layer.weight_format if layer else "",
                "note": sparse_reason(layer, chip, kernel) if layer else "runs inside another layer",
            }
        )
    return _priced(graph, table, chip) | {
        "ms_referee": verdict.ms,
        "kb_encoded": verdict.weights_kb_encoded,
        "sram_kb": verdict.sram_kb,
        "layers": layers,
    }
