"""An experiment that holds every class of spec, for the tests of what is done to experiments."""

import dataclasses as dc
from typing import Any

from research.data.synthetic import RenderedHands
from research.nets import Block, HandNet
from research.npu import U55_128, U85_128
from research.spec import Experiment, Named, Optim, Stage, Track, join_floats, named, split_floats
from research.squeeze import NM, Distill, FakeQuant, WidthGates

NET = HandNet(64, 16, (Block(48, 16, 3, 2), Block(64, 16), Block(96, 24, 5, 2)), 32)
LINKS = ("gates", "sparse", "distill")
EXPERIMENT = Experiment(
    name="sample",
    data=RenderedHands(),
    tracks=named(
        v1=Track(NET, (Stage("dense", 900),)),
        teacher=Track(dc.replace(NET, stem=24), (Stage("dense", 500),)),
        v2=Track(
            NET,
            (Stage("dense", 500), Stage("squeeze", 150, LINKS, ("gates",)), Stage("finish", 250, LINKS[1:])),
            teacher="teacher",
        ),
    ),
    squeeze=named(
        gates=WidthGates(budget_ms=0.8),
        sparse=NM(2, 4),
        distill=Distill(pairs=(("b1/add", "b1/add"), ("neck", "b2/project"))),
        quant=FakeQuant(where=("*/kernel", "b0/*")),
    ),
    claims=named(gates="1.15x, +1 %", sparse="1.5x, -0.5 %"),
    old_chip=U55_128,
    new_chip=U85_128,
    optim=Optim(batch=64, lr=4e-3),
)


def parts(spec: Any) -> list[Any]:
    """Every dataclass inside a spec, itself included."""
    if isinstance(spec, tuple):
        return [part for item in spec for part in parts(item)]
    if dc.is_dataclass(spec):
        inside = [spec.items] if isinstance(spec, Named) else [getattr(spec, f.name) for f in dc.fields(spec)]
        return [spec, *parts(tuple(inside))]
    return []


def moved_floats(spec: Any) -> Any:
    """The spec with every float moved by a half."""
    static, floats = split_floats(spec)
    return join_floats(static, [number + 0.5 for number in floats])
