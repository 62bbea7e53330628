"""The train state and the program: what changes at every step, and what is compiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from research.npu.chip import Chip
from research.spec import Named, Optim

Tree = Any


class TrainState(NamedTuple):
    """Everything a step reads and writes. `step` int32 scalar, counted within a stage."""

    step: jax.Array
    params: Tree
    learned: Tree
    squeeze: Tree
    norm_stats: Tree
    opt: Tree


@dataclass(frozen=True)
class Program:
    """The static half of a stage, hashable: one compiled step each.

    Floats inside `links` and `optim` are placeholders; their values arrive as arguments (`Hyper`), so that editing
    one never retraces. `formulation` is how convolutions are computed; None: as this process's backend runs them
    fastest, so it is named only where a program is compiled for another machine.
    """

    net: Any
    links: Named
    optim: Optim
    chip: Chip
    teacher: Any = None
    formulation: str | None = None


class Hyper(NamedTuple):
    """The dynamic half: floats of the links and of the optimiser, stage length, learning-rate factors, seed."""

    links: tuple[float, ...]
    optim: tuple[float, ...]
    steps: int
    lr_start: float
    lr_end: float
    seed: int
