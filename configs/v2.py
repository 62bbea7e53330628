"""V2 in minutes: does squeezing a larger hand tracker beat V1 on the new NPU, and what was each technique worth?

Command:  python -m research.run configs/v2.py        (or: make reproduce)
Time:     under 10 minutes on 2 CPU cores. A demo: 64 px crops, a few MMACs, 1 seed, minutes of training.
Expect:   EXPECT below, checked against configs/results/v2.json.
"""

from collections.abc import Iterator

from research.data.scene import Look
from research.data.synthetic import RenderedHands
from research.nets import hand_net
from research.npu import U55_128, U85_128
from research.spec import Experiment, Optim, Stage, Track, named
from research.squeeze import NM, Distill, WidthGates

V1 = hand_net(64, 16, 32, (48, 16, 2), (64, 24, 2), (96, 24, 1), (96, 40, 2), (160, 40, 1), (160, 40, 1))
V2 = hand_net(64, 16, 48, (32, 24, 2), (96, 32, 2), (128, 32, 1), (128, 64, 2), (256, 64, 1), (256, 64, 1))
TEACHER = hand_net(
    64, 24, 64, (64, 32, 2), (128, 48, 2), (192, 48, 1), (192, 80, 2), (320, 80, 1), (320, 80, 1)
)
# The backs of right hands in crops that follow the hand, as a headset sees them (it mirrors the left ones).
HEADSET = Look((0.66, 0.74), 0.015, 12.0, 0.0, left=0.0, palms=0.0, turned=0.0, yaw_deg=12.0, occluded=0.05)


def config() -> Experiment:
    """V1, a teacher, and a V2 of twice V1's parameters under three links, each also left out once.

    The budget is the story's: two thirds of the time V1 takes on the old chip (1.164 ms simulated).
    """
    squeeze = Stage("squeeze", 90, ("gates", "sparse", "distill"), ("gates",), lr_start=0.4, lr_end=0.3)
    finish = Stage("finish", 130, ("sparse", "distill"), lr_start=0.3)
    v2 = Track(V2, (Stage("dense", 380, lr_end=0.4), squeeze, finish), teacher="teacher")
    v1, teacher = Track(V1, (Stage("dense", 600),)), Track(TEACHER, (Stage("dense", 450),))
    pairs = (("b2/add", "b2/add"), ("b4/add", "b4/add"))
    return Experiment(
        name="v2",
        data=RenderedHands(size_px=64, test_images=512, look=HEADSET),
        tracks=named(v1=v1, teacher=teacher, v2=v2),
        squeeze=named(gates=WidthGates(budget_ms=0.776), sparse=NM(2, 4), distill=Distill(pairs=pairs)),
        rows=("sparse", "distill", "gates"),
        claims=named(sparse="1.5x, -0.5 %", distill="+3 %", gates="1.15x, +1 %"),
        old_chip=U55_128,
        new_chip=U85_128,
        optim=Optim(batch=64, lr=1e-2),
    )


def sweep() -> Iterator[dict[str, object]]:
    """Three seeds."""
    yield from ({"seed": seed} for seed in range(3))


EXPECT = {"rows.5.ms_referee": (0.76, 0.03), "rows.5.error_px_int8": (4.8, 0.5)}
