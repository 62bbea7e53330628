"""Training speed on this CPU: the project's train step against PyTorch and plain Flax, on one network and batch.

`python -m research.bench.train_speed [--check]`, with `pip install -c constraints.txt -e '.[bench]'` for PyTorch. The
same inverted-residual network three times: ours (the formulations of `research.nets`), PyTorch eager in channels_last,
and ours with XLA's grouped convolutions as `nn.Conv` computes them. Forward, loss, gradients and AdamW of a batch
that lies in memory. Sides alternate in one process; verdicts are on the 95 % interval of the median ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

from research import nets
from research.nets import HandNet, hand_net
from research.nets.formulation import CANONICAL, fastest
from research.train.record import write_json
from research.train.runtime import prepare_runtime
from research.train.task import task_loss

RESULT = Path("configs/results/bench/train_speed.json")
BATCH, SIZES_PX, PAIRS, THREADS, STEPS = 64, (64, 96), 11, 2, 2
TORCH_BAR, FLAX_BAR = 1.0, 4.0
Run = Callable[[int], float]
"""Steps to do -> seconds that they took."""


def network(size_px: int) -> HandNet:
    """The inverted-residual network, 326 k parameters."""
    blocks = ((72, 32, 2), (128, 32, 1), (128, 56, 2), (224, 56, 1), (224, 56, 1), (224, 88, 2))
    return hand_net(size_px, 24, 96, *blocks, (352, 88, 1), (352, 88, 1))


def ours(net: HandNet, images: np.ndarray, truth: np.ndarray, formulation: str) -> Run:
    """Our step, compiled, its buffers donated."""
    params, norm_stats = nets.init(net, jax.random.key(0))
    tx = optax.adamw(1e-3)
    batch = jnp.asarray(images), jnp.asarray(truth)

    def step(params: Any, norm_stats: Any, opt: Any, images: jax.Array, truth: jax.Array) -> tuple[Any, ...]:
        def loss(params: Any) -> tuple[jax.Array, Any]:
            out = nets.forward(net, params, norm_stats, images, train=True, formulation=formulation)
            return task_loss(out.keypoints, truth), out.norm_stats

        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
        moves, opt = tx.update(grads, opt, params)
        return optax.apply_updates(params, moves), stats, opt, value

    compiled = jax.jit(step, donate_argnums=(0, 1, 2))
    state: list[Any] = [params, norm_stats, tx.init(params)]

    def run(count: int) -> float:
        start, value = time.perf_counter(), None
        for _ in range(count):
            *state[:], value = compiled(*state, *batch)
        jax.block_until_ready(value)
        return time.perf_counter() - start

    run(2)
    return run


def torch_step(net: HandNet, images: np.ndarray, truth: np.ndarray) -> Run:
    """The same network and step in PyTorch eager, channels_last. ModuleNotFoundError without it."""
    import torch
    from torch import nn

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)

    def unit(wide: int, out: int, kernel: int, stride: int, groups: int, act: bool) -> list[Any]:
        conv = nn.Conv2d(wide, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(out), *([nn.ReLU6()] if act else [])]

    class Residual(nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Any) -> Any:
            return x + self.inner(x)

    layers, width = unit(1, net.stem, 3, 2, 1, True), net.stem
    for b in net.blocks:
        inner = nn.Sequential(
            *unit(width, b.mid, 1, 1, 1, True),
            *unit(b.mid, b.mid, b.kernel, b.stride, b.mid, True),
            *unit(b.mid, b.out, 1, 1, 1, False),
        )
        layers.append(Residual(inner) if b.stride == 1 and b.out == width else inner)
        width = b.out
    layers += [
        *unit(width, net.neck, 1, 1, 1, True),
        nn.Flatten(),
        nn.Linear(net.neck * net.plane() ** 2, 42),
    ]
    model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    tx = torch.optim.AdamW(model.parameters(), lr=1e-3)
    seen = torch.from_numpy(images[:, None]).to(memory_format=torch.channels_last)
    wanted = torch.from_numpy(truth)

    def run(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            tx.zero_grad(set_to_none=True)
            apart = model(seen).reshape(-1, 21, 2) + 0.5 - wanted
            apart.square().sum(2).add(1e-6).sqrt().mean().backward()
            tx.step()
        return time.perf_counter() - start

    run(2)
    return run


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Median of paired ratios and its 95 % bootstrap interval (10,000 draws, fixed seed)."""
    draws = np.random.default_rng(0).choice(np.asarray(ratios), (10_000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
    return float(np.median(ratios)), float(low), float(high)


def measure(size_px: int, pairs: int, *, with_torch: bool) -> dict[str, Any]:
    """One size: images a second of each side, CPU seconds a step of ours, ratios with intervals."""
    rng = np.random.default_rng(0)
    net = network(size_px)
    images = rng.uniform(size=(BATCH, size_px, size_px)).astype(np.float32)
    truth = rng.uniform(size=(BATCH, 21, 2)).astype(np.float32)
    sides: dict[str, Run] = {"ours": ours(net, images, truth, fastest())}
    sides["flax"] = ours(net, images, truth, CANONICAL)
    if with_torch:
        sides["torch"] = torch_step(net, images, truth)
    took: dict[str, list[float]] = {name: [] for name in sides}
    burnt: dict[str, list[float]] = {name: [] for name in sides}
    for pair in range(pairs):
        for name in sides if pair % 2 else reversed(sides):
            if name == "flax" and pair % 3:
                continue  # slow, and far from its bar
            before = resource.getrusage(resource.RUSAGE_SELF)
            took[name].append(sides[name](STEPS) / STEPS)
            after = resource.getrusage(resource.RUSAGE_SELF)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            burnt[name].append(spent / STEPS)
    found: dict[str, Any] = {"size_px": size_px, "params": _count(net), "batch": BATCH, "pairs": pairs}
    for name, seconds in took.items():
        found[f"{name}_images_per_s"] = BATCH / float(np.median(seconds))
        found[f"{name}_cpu_ms_a_step"] = 1e3 * float(np.median(burnt[name]))
    own = took["ours"]
    found["times_flax"] = interval(
        [a / b for a, b in zip(took["flax"], own[:: max(len(own) // len(took["flax"]), 1)], strict=False)]
    )
    if with_torch:
        found["times_torch"] = interval([a / b for a, b in zip(took["torch"], own, strict=True)])
    return found


def _count(net: HandNet) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nets.shapes(net)[0]))


def failures(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What misses its bar: the lower end of an interval decides."""
    found = []
    for row in rows:
        for name, bar in (("torch", TORCH_BAR), ("flax", FLAX_BAR)):
            if f"times_{name}" not in row:
                found.append(f"{row['size_px']} px: PyTorch is not installed: pip install -e '.[bench]'")
            elif row[f"times_{name}"][1] < bar:
                mid, low, high = row[f"times_{name}"]
                found.append(f"{row['size_px']} px: {mid:.2f}x {name} ({low:.2f} to {high:.2f}), wanted {bar:g}x")
    return found


def main(argv: list[str] | None = None) -> int:
    """Prints the table and the JSON line; 1 with --check when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.train_speed", description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES_PX), metavar="PX")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT}")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    args = parser.parse_args(argv)
    prepare_runtime()
    try:
        import torch  # noqa: F401

        with_torch = True
    except ModuleNotFoundError:
        with_torch = False
    rows = [measure(size, args.pairs, with_torch=with_torch) for size in args.sizes]
    table = Table("px", "ours img/s", "PyTorch", "plain Flax", "x PyTorch", "x Flax", title=f"batch {BATCH}")
    for row in rows:
        ratios = [row.get(f"times_{name}") for name in ("torch", "flax")]
        table.add_row(
            str(row["size_px"]),
            *(f"{row.get(f'{name}_images_per_s', float('nan')):.0f}" for name in ("ours", "torch", "flax")),
            *("-" if r is None else f"{r[0]:.2f} ({r[1]:.2f} to {r[2]:.2f})" for r in ratios),
        )
    Console(width=100).print(table)
    said = {"bench": "train_speed", "rows": rows, "cores": os.cpu_count(), "missed": failures(rows)}
    if args.write:
        write_json(RESULT, said)
    print(json.dumps(said))
    return 1 if args.check and said["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
