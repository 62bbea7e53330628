"""Damaged .tflite files: `python -m research.bench.fuzz [--count 10000] [--seed 0] [--check]`.

Small files of our own writer (float, int8, int16x8 and mixed) are cut short, get flipped bits, runs of bytes, hostile
sizes and offsets, pieces of each other; each is read, and run if it still reads, in a child process with 1 GiB of
address space and a time limit. Bar: one clear line for each or a program that runs; no crash, no hang, no other error.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from research.bench.networks import random_network
from research.graph import trace
from research.graph.exact import compile_exact
from research.graph.integer import quantise
from research.graph.interpret import observe
from research.graph.ir import WEIGHTED
from research.graph.oracle import run
from research.graph.program import Program
from research.graph.read import read
from research.graph.rewrite import fold_constants_only, optimise
from research.graph.write import write

MEMORY = 2**30  # bytes of address space of the child
LIMIT_S = 10.0  # for one file
LARGEST = 2**22  # numbers in the tensors of a program, for it to be run
BAD = ("crash", "hang", "memory", "not one line")
HOSTILE = (0, 1, 4, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFC, 0x10000, 0x1000000, 0x40000000)
Judge = Callable[[bytes], str]


class Answer(NamedTuple):
    """What became of one file, after how many ms."""

    number: int
    outcome: str
    ms: float


def sound_files() -> list[bytes]:
    """Six files: two random networks in float, fused int8, and unfused with every second layer in int16."""
    found = []
    for number in (2, 5):
        net = random_network(number)
        graph = trace(net.fn, net.params, jax.ShapeDtypeStruct(net.shape, jnp.float32))
        image = np.random.default_rng(number).uniform(size=net.shape).astype(np.float32)
        fused, weights, _ = optimise(graph, net.params)
        plain, loose, _ = fold_constants_only(graph, net.params)
        wide = dict.fromkeys([n.output for n in plain.nodes if n.op in WEIGHTED][::2], 16)
        mixed = quantise(plain, loose, observe(plain, loose, image), bits=wide)
        int8 = quantise(fused, weights, observe(fused, weights, image))
        found += [write(p) for p in (Program(fused, weights), int8, mixed)]
    return found


def _cut_short(data: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return data[: rng.integers(data.size)]


def _flip_bits(data: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    at = rng.integers(data.size, size=rng.integers(1, 9))
    data[at] ^= np.uint8(1) << rng.integers(8, size=at.size).astype(np.uint8)
    return data


def _overwrite_run(data: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    begin, count = rng.integers(data.size), rng.integers(1, 65)
    data[begin : begin + count] = (0, 255, rng.integers(256))[rng.integers(3)]
    return data


def _plant_numbers(data: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    words = data[: data.size // 4 * 4].view("<u4")
    words[rng.integers(words.size, size=rng.integers(1, 5))] = rng.choice([*HOSTILE, data.size, words.size])
    return data


def _splice(data: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    begin, end = np.sort(rng.integers(other.size, size=2))
    at = rng.integers(data.size)
    return np.concatenate([data[:at], other[begin:end], data[at + (end - begin) * rng.integers(2) :]])


DAMAGES: Mapping[str, Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]] = {
    "cut short": _cut_short, "bits flipped": _flip_bits, "run overwritten": _overwrite_run,
    "hostile numbers": _plant_numbers, "pieces spliced": _splice,
}  # fmt: skip


def damage(files: Sequence[bytes], seed: int, index: int) -> tuple[str, bytes]:
    """(kind of damage, file): the damaged file of this seed and number, the same in every process."""
    rng = np.random.default_rng([seed, index])
    kind = list(DAMAGES)[index % len(DAMAGES)]
    data, other = (np.frombuffer(files[i], np.uint8).copy() for i in rng.integers(len(files), size=2))
    return kind, DAMAGES[kind](data, other, rng).tobytes()


def judge(model: bytes) -> str:
    """ "refused", "read, not run" or "runs". Anything but ValueError passes; so does one of more than one line."""
    program, what = None, "refused"
    try:
        program = read(model)
        what = "read, not run"
        graph = program.graph
        if sum(np.prod(t.shape) for t in graph.tensors) + graph.total_macs / 16 > LARGEST:
            return what
        compile_exact(program)
        run(program, [np.zeros(graph.shape(i), program.dtype(i)) for i in graph.inputs])
    except ValueError as error:
        return what if "\n" not in str(error) else "not one line"
    return "runs"


def _child(link: Connection, files: Sequence[bytes], seed: int, indices: range, judge: Judge) -> None:
    """Judges files until it is done or dead; an error that is no ValueError ends it with its traceback."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for index in indices:
        model, start = damage(files, seed, index)[1], time.perf_counter()
        link.send(None)  # it begins
        try:
            outcome = judge(model)
        except MemoryError:
            outcome = "memory"
        link.send(Answer(index, outcome, (time.perf_counter() - start) * 1e3))


def answers(
    files: Sequence[bytes], count: int, seed: int, *, judge: Judge = judge, limit_s: float = LIMIT_S
) -> Iterator[Answer]:
    """What becomes of every damaged file, in order, each in a child that is replaced when it dies or is stuck.

    "crash": the child ended, by a signal or by an error other than ValueError; "hang": no answer in `limit_s`.
    """
    context, first = multiprocessing.get_context("spawn"), 0
    while first < count:
        here, there = context.Pipe(duplex=False)
        child = context.Process(
            target=_child, args=(there, files, seed, range(first, count), judge), daemon=True
        )
        child.start()
        there.close()
        try:
            while first < count:
                here.recv()
                if here.poll(limit_s):
                    yield here.recv()
                else:
                    yield Answer(first, "hang", limit_s * 1e3)
                    break
                first += 1
        except EOFError:
            yield Answer(first, "crash", 0.0)
        first += 1
        child.kill()
        child.join()
        here.close()


def main(argv: list[str] | None = None) -> int:
    """Prints the table and the JSON line; 1 with --check when a file is answered in another way than the bar says."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="damaged files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true", help="exit 1 for a crash, a hang or an unclear error")
    args = parser.parse_args(argv)
    files, kinds = sound_files(), list(DAMAGES)
    found = list(tqdm(answers(files, args.count, args.seed), "files", args.count, disable=None))
    totals = Counter(a.outcome for a in found)
    each = Counter((kinds[a.number % len(kinds)], a.outcome) for a in found)
    columns = ("refused", "read, not run", "runs", *BAD)
    table = Table(
        "damage", *columns, title=f"{args.count} damaged files of {len(files)} sound ones, measured"
    )
    for kind in kinds:
        table.add_row(kind, *(str(each[kind, outcome]) for outcome in columns))
    Console().print(table)
    slowest = max(found, key=lambda a: a.ms)
    bad = [a for a in found if a.outcome in BAD]
    missed = [f"file {a.number}: {a.outcome}" for a in bad[:10]]
    figures = {"files": args.count, **{outcome: totals[outcome] for outcome in columns}}
    slow = {"slowest_ms": round(slowest.ms, 1), "slowest_file": slowest.number}
    print(json.dumps({"bench": "fuzz", **figures, **slow, "missed": missed}))
    return 1 if args.check and bad else 0


if __name__ == "__main__":
    sys.exit(main())
