"""V2 in minutes: does squeezing a larger hand tracker beat V1 on the new NPU, and what was each technique worth?

Command:  python -m research.run configs/v2.py        (or: make reproduce)
Time:     about 8 minutes on 2 CPU cores. A demo: 64 px crops, 1 seed, minutes of training.
Expect:   the constant at the end, checked against configs/results/v2.json by tests/test_configs.py.
"""

from collections.abc import Iterator

from research.data.synthetic import RenderedHands
from research.nets import Block, HandNet
from research.npu import U55_128, U85_128
from research.spec import Experiment, Optim, Stage, Track, named
from research.squeeze import NM, Distill, WidthGates

B = Block
V1 = HandNet(64, 16, (B(48, 16, 3, 2), B(64, 24, 3, 2), B(96, 24), B(96, 40, 3, 2), B(160, 40), B(160, 40)), 32)
V2 = HandNet(64, 16, (B(64, 24, 3, 2), B(96, 32, 3, 2), B(128, 32), B(128, 56, 3, 2), B(224, 56), B(224, 56)), 48)
TEACHER = HandNet(64, 24, (B(96, 32, 3, 2), B(128, 48, 3, 2), B(192, 48), B(192, 80, 3, 2), B(320, 80), B(320, 80)), 64)


def config() -> Experiment:
    """The main job: V1, a teacher, and V2 under three links, each also left out once."""
    squeezed = ("gates", "sparse", "distill")
    return Experiment(
        name="v2",
        data=RenderedHands(size_px=64, test_images=512),
        tracks=named(
            v1=Track(V1, (Stage("dense", 900),)),
            teacher=Track(TEACHER, (Stage("dense", 500),)),
            v2=Track(
                V2,
                (
                    Stage("dense", 500),
                    Stage("squeeze", 150, squeezed, settle=("gates",)),
                    Stage("finish", 250, ("sparse", "distill")),
                ),
                teacher="teacher",
            ),
        ),
        squeeze=named(
            gates=WidthGates(budget_ms=0.8),
            sparse=NM(2, 4),
            distill=Distill(pairs=(("b2/add", "b2/add"), ("b4/add", "b4/add"))),
        ),
        claims=named(gates="1.15x, +1 %", sparse="1.5x, -0.5 %", distill="+3 %"),
        old_chip=U55_128,
        new_chip=U85_128,
        optim=Optim(batch=64, lr=4e-3),
    )


def sweep() -> Iterator[dict[str, object]]:
    """Three seeds."""
    yield from ({"seed": seed} for seed in range(3))
