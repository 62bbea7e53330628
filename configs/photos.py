"""A hand tracker that has only ever seen renders, for real photographs: half a million renders and a heatmap.

Command:  python -m research.bench.transfer configs/photos.py --save [--eval-npz FILE] [--peers runs/peers]
Time:     about 35 minutes on 2 CPU cores;
/released/photos.tflite.
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


# A heatmap on 8 x 8 places says where a joint is; a dense head on 4 x 4 places of as many MACs learns slower.
# Full convolutions where planes are wide and channels few: on a CPU they train at three times the MACs a second.
NET = HandNet(
    64,
    24,
    (
        _full(48, 32, 2), _full(64, 32), _full(112, 80, 2),
        Block(240, 80, 5), Block(240, 80), Block(240, 80, 5), Block(240, 80),
    ),
    128,
    head=Head("heatmap", 24),
)  # fmt: skip


def config() -> Experiment:
    """24 MMACs, 281 k parameters; every view, either hand, any turn, looser and tighter crops than elsewhere."""
    look = Look(fill=(0.5, 0.9), shift=0.05, roll_deg=50.0, wild=0.2, palms=0.5, turned=0.25, occluded=0.1)
    return Experiment(
        name="photos",
        data=RenderedHands(size_px=64, test_images=1024, look=look),
        tracks=named(net=Track(NET, (Stage("dense", 16000),))),
        squeeze=named(),
        old_chip=U55_128,
        new_chip=U85_128,
        optim=Optim(batch=32, lr=3e-3, axes=0.1),
        baseline="net",
        target="net",
    )


def sweep() -> Iterator[dict[str, object]]:
    """One recipe."""
    yield {}


EXPECT = {"rows.0.int8.error_box": (0.128, 0.015)}
