"""Do we predict every integer? `python -m research.bench.exactness [--networks 50] [--inputs 10000] [--check]`.

Random networks of our space and the released V2 run in our JAX interpreter, in our independent numpy one and in
LiteRT's reference kernels (BUILTIN_REF), fused and unfused, int8 and mixed with int16x8; every output integer is
compared. LiteRT's default kernels (XNNPACK, single rounding, what users run) are counted apart: they may differ.
Bar: 0 differing outputs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from research import nets
from research.bench.networks import random_network
from research.door import load
from research.graph import trace
from research.graph.exact import compile_exact
from research.graph.integer import quantise
from research.graph.interpret import observe
from research.graph.ir import WEIGHTED, Graph
from research.graph.oracle import run as run_numpy
from research.graph.program import LIMITS, Program
from research.graph.read import read
from research.graph.rewrite import fold_constants_only, optimise
from research.graph.runtime import run_raw
from research.graph.weights import Params
from research.graph.write import write
from research.train.runtime import prepare_runtime

RELEASED = Path("configs/released/v2.tflite")
MIXED_SHARE = 0.4  # of the random networks have some layers in int16x8


class Row(NamedTuple):
    """One program compared: its operators, images, integers, and how many differ from LiteRT's reference.

    xnnpack_differs counts integers where LiteRT's default kernels differ from its reference, by at most
    xnnpack_steps steps of 8 bits (256 of an int16 output).
    """

    name: str
    form: str
    ops: int
    layers_int16: int
    images: int
    integers: int
    jax_differs: int
    numpy_differs: int
    xnnpack_differs: int
    xnnpack_steps: int


def input_images(program: Program, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` images in the type of the program's input: smooth ones, noise, and the two extremes."""
    name = program.graph.inputs[0]
    low, high = LIMITS[program.scales[name].dtype]
    shape = (count, *program.graph.shape(name)[1:])
    images = rng.integers(low, high + 1, shape)
    coarse = rng.integers(low, high + 1, (count, 3, 3, shape[3]))
    rows, columns = (np.arange(shape[a]) * 3 // shape[a] for a in (1, 2))
    images[::2] = coarse[::2][:, rows][:, :, columns]
    images[:2] = np.reshape([low, high], (2, 1, 1, 1))[: len(images[:2])]
    return images.astype(program.scales[name].dtype)


def compare(name: str, form: str, program: Program, images: np.ndarray) -> Row:
    """Runs the program four ways on integer images [N, H, W, C] and counts what differs."""
    model = write(program)
    truth = run_raw(model, [images], reference=True)
    ours = [np.asarray(y) for y in compile_exact(program)(images)]
    plain, default = run_numpy(program, [images]), run_raw(model, [images], reference=False)
    outputs = [program.dtype(o) for o in program.graph.outputs]
    if any(y.dtype != kind for y, kind in zip(ours, outputs, strict=True)):
        raise ValueError(f"{name}: outputs have types {[y.dtype for y in ours]}, wanted {outputs}")

    def differing(got: Sequence[np.ndarray]) -> int:
        return sum(int((a != b).sum()) for a, b in zip(truth, got, strict=True))

    unit = {"int8": 1, "int16": 256}  # a step of 8 bits
    gaps = [np.abs(a.astype(np.int64) - b) // unit[a.dtype.name] for a, b in zip(truth, default, strict=True)]
    sixteen = [n for n in program.graph.nodes if n.op in WEIGHTED and program.dtype(n.output) == "int16"]
    operators = sum(n.op != "constant" for n in program.graph.nodes)
    return Row(
        name, form, operators, len(sixteen), len(images), sum(y.size for y in truth),
        differing(ours), differing(plain), differing(default), max(int(g.max()) for g in gaps),
    )  # fmt: skip


def forms(graph: Graph, params: Params) -> Iterator[tuple[str, Graph, Params]]:
    """("fused" | "unfused", graph, weights): everything folded and fused, or every operator by itself."""
    yield "fused", *optimise(graph, params)[:2]
    yield "unfused", *fold_constants_only(graph, params)[:2]


def programs(
    graph: Graph, params: Params, shape: Sequence[int], rng: np.random.Generator, mixed: bool
) -> Iterator[tuple[str, Program]]:
    """Both forms of a traced network, quantised with ranges seen on random images; `mixed` has int16 layers."""
    images = rng.uniform(size=(8, *shape[1:])).astype(np.float32)
    for form, found, weights in forms(graph, params):
        layers = [n.output for n in found.nodes if n.op in WEIGHTED]
        wide = [name for name in layers if mixed and rng.uniform() < 0.3]
        yield form, quantise(found, weights, observe(found, weights, images), bits=dict.fromkeys(wide, 16))


def v2_programs(rng: np.random.Generator) -> Iterator[tuple[str, str, Program]]:
    """The released V2 as its file says it, and the V2 of the config with its norms, fused and not."""
    yield "v2 released", "file", read(RELEASED.read_bytes())
    net = load("configs/v2.py").tracks["v2"].net
    weights, stats = nets.init(net, jax.random.key(0))
    stats = jax.tree.map(lambda s: s + rng.uniform(0, 0.5, s.shape).astype(np.float32), stats)
    params = {"params": weights, "norm_stats": stats}
    shape = (1, net.size_px, net.size_px, 1)

    def forward(p: Params, image: jax.Array) -> jax.Array:
        found = nets.forward(net, p["params"], p["norm_stats"], image[..., 0], formulation="canonical")
        return found.keypoints.reshape(image.shape[0], -1)

    graph = trace(forward, params, jax.ShapeDtypeStruct(shape, jnp.float32))
    for mixed in (False, True):
        for form, program in programs(graph, params, shape, rng, mixed):
            yield "v2 int8+int16" if mixed else "v2", form, program


def measure(networks: int, inputs: int, seed: int) -> list[Row]:
    """One row a program; `inputs` images in all, evenly over the networks and over the forms of each."""
    rng, found = np.random.default_rng(seed), []
    share = -(-inputs // (networks + 1))  # of a network; the V2 counts as one
    with tqdm(total=networks + 1, desc="networks", disable=None) as bar:
        v2 = list(v2_programs(rng))
        for name, form, program in v2:
            images = input_images(program, -(-share // len(v2)), rng)
            found.append(compare(name, form, program, images))
        bar.update()
        for number in range(networks):
            net = random_network(1000 * seed + number)
            graph = trace(net.fn, net.params, jax.ShapeDtypeStruct(net.shape, jnp.float32))
            mixed = bool(rng.uniform() < MIXED_SHARE)
            for form, program in programs(graph, net.params, net.shape, rng, mixed):
                name = f"{number:02d} {net.shape[1]} px {net.activation}: {' '.join(net.blocks)}"
                found.append(compare(name, form, program, input_images(program, -(-share // 2), rng)))
            bar.update()
    return found


def main(argv: list[str] | None = None) -> int:
    """Prints the table and the JSON line; 1 with --check when an integer differs."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.exactness", description=__doc__)
    parser.add_argument("--networks", type=int, default=50)
    parser.add_argument("--inputs", type=int, default=10_000, help="images in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true", help="exit 1 when an integer differs")
    args = parser.parse_args(argv)
    prepare_runtime()
    rows = measure(args.networks, args.inputs, args.seed)
    columns = ("network", "form", "ops", "int16 layers", "images", "integers", "JAX differs", "numpy differs")
    table = Table(*columns, "XNNPACK differs", "by", title="against LiteRT's reference kernels, measured")
    for row in rows:
        table.add_row(*map(str, row))
    Console().print(table)
    sums = {k: sum(getattr(r, k) for r in rows) for k in Row._fields[4:9]}
    missed = [f"{k}: {sums[k]}, none allowed" for k in ("jax_differs", "numpy_differs") if sums[k]]
    if sums["images"] < args.inputs:
        missed.append(f"images: {sums['images']}, at least {args.inputs}")
    most = max(r.xnnpack_steps for r in rows)
    print(
        json.dumps(
            {
                "bench": "exactness",
                "networks": args.networks + 1,
                **sums,
                "xnnpack_steps": most,
                "missed": missed,
            }
        )
    )
    return 1 if args.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
