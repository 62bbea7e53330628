"""A hand tracker that has only ever seen renders, for real photographs: as many renders as two hours allow.

Command:  python -m research.bench.transfer configs/photos.py --save [--eval-npz FILE] [--peers runs/peers]
Time:     about 80 minutes on 2 CPU cores, 2 minutes on a v5e-8; it goes on where it was stopped.
Expect:   EXPECT below, checked against configs/results/photos.json.
"""

from collections.abc import Iterator

from research.data.scene import Look
from research.data.synthetic import RenderedHands
from research.nets import Block, HandNet, Head
from research.npu import U55_128, U85_128
from research.spec import Experiment, Optim, Stage, Track, named


def _full(mid: int, out: int, stride: int = 1) -> Block:
    return Block(mid, out, 3, stride, fused=True)


# Full convolutions where planes are wide and channels few: on a CPU they train at three times the MACs a second.
NET = HandNet(
    64,
    24,
    (
        _full(48, 32, 2), _full(64, 32), _full(96, 64, 2), _full(112, 64), _full(112, 64),
        Block(224, 80, 3, 2), Block(320, 80),
    ),
    64,
    head=Head("simcc", 24, 48),
)  # fmt: skip


def config() -> Experiment:
    """22 MMACs, 404 k parameters; every view, either hand, any turn, looser and tighter crops than elsewhere."""
    look = Look(fill=(0.5, 0.9), shift=0.05, roll_deg=50.0, wild=0.2, palms=0.5, turned=0.25, occluded=0.1)
    return Experiment(
        name="photos",
        data=RenderedHands(size_px=64, test_images=1024, look=look),
        tracks=named(net=Track(NET, (Stage("dense", 16000),))),
        squeeze=named(),
        old_chip=U55_128,
        new_chip=U85_128,
        optim=Optim(batch=32, lr=3e-3),
        baseline="net",
        target="net",
    )


def sweep() -> Iterator[dict[str, object]]:
    """One recipe."""
    yield {}
