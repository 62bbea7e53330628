"""V2 in minutes: does squeezing a larger hand tracker beat V1 on the new NPU, and what was each technique worth?

Command:  python -m research.run configs/v2.py        (or: make reproduce)
Time:     under 10 minutes on 2 CPU cores. A demo: 64 px crops, a few MMACs, 1 seed, minutes of training.
Expect:   EXPECT below, checked against configs/results/v2.json.
"""

from collections.abc import Iterator

from research.data.scene import Look
from research.data.synthetic import RenderedHands
from research.nets import Block, HandNet
from research.npu import U55_128, U85_128
from research.spec import Experiment, Optim, Stage, Track, named
from research.squeeze import NM, Distill, WidthGates

B = Block
V1 = HandNet(
    64, 16, (B(48, 16, 3, 2), B(64, 24, 3, 2), B(96, 24), B(96, 40, 3, 2), B(160, 40), B(160, 40)), 32
)
V2 = HandNet(
    64, 16, (B(32, 24, 3, 2), B(96, 32, 3, 2), B(128, 32), B(128, 64, 3, 2), B(256, 64), B(256, 64)), 48
)
TEACHER = HandNet(
    64, 24, (B(64, 32, 3, 2), B(128, 48, 3, 2), B(192, 48), B(192, 80, 3, 2), B(320, 80), B(320, 80)), 64
)
# The backs of right hands, as a headset's own cameras see them (it mirrors the left ones).
EGOCENTRIC = Look(
    (0.66, 0.74), 0.015, roll_deg=12.0, wild=0.0, left=0.0, palms=0.0, turned=0.0, yaw_deg=12.0, occluded=0.05
)


def config() -> Experiment:
    """V1, a teacher, and a V2 of twice the parameters under three links, each also left out once.

    The budget is the story's: two thirds of the time V1 takes on the old chip (1.164 ms simulated).
    """
    squeeze = Stage("squeeze", 120, ("gates", "sparse", "distill"), ("gates",), lr_start=0.4, lr_end=0.3)
    finish = Stage("finish", 180, ("sparse", "distill"), lr_start=0.3)
    return Experiment(
        name="v2",
        data=RenderedHands(size_px=64, test_images=512, look=EGOCENTRIC),
        tracks=named(
            v1=Track(V1, (Stage("dense", 850),)),
            teacher=Track(TEACHER, (Stage("dense", 700),)),
            v2=Track(V2, (Stage("dense", 550, lr_end=0.4), squeeze, finish), teacher="teacher"),
        ),
        squeeze=named(
            gates=WidthGates(budget_ms=0.776),
            sparse=NM(2, 4),
            distill=Distill(pairs=(("b2/add", "b2/add"), ("b4/add", "b4/add"))),
        ),
        rows=("sparse", "distill", "gates"),
        claims=named(sparse="1.5x, -0.5 %", distill="+3 %", gates="1.15x, +1 %"),
        old_chip=U55_128,
        new_chip=U85_128,
        optim=Optim(batch=64, lr=1e-2),
    )


def sweep() -> Iterator[dict[str, object]]:
    """Three seeds."""
    yield from ({"seed": seed} for seed in range(3))
