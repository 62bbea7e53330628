"""A hand tracker that has only ever seen renders, for real photographs: 131,072 renders, varied anew in each pass.

Command:  python -m research.bench.transfer configs/photos.py --save [--eval-npz FILE] [--peers runs/peers]
Time:     about an hour on 2 CPU cores, five minutes of it for the renders (1.2 GB in runs/renders)
Writes:   runs/photos/, with --save configs/results/photos.json; its net.tflite is configs/released/photos.tflite.
Expect:   EXPECT below, checked against configs/results/photos.json.
"""

from collections.abc import Iterator

from research.data.augment import Augment
from research.data.redrawn import RedrawnHands
from research.data.scene import Look
from research.data.synthetic import RenderedHands
from research.nets import Block, HandNet, Head
from research.npu import U55_128, U85_128
from research.spec import Experiment, Optim, Stage, Track, named

# A heatmap on 8 x 8 places says where a joint is; a dense head on 4 x 4 places of as many MACs learns slower.
# Full convolutions on large planes: a CPU trains them at more MACs a second than depthwise ones.
WIDTHS = ((48, 32, 2), (64, 32, 1), (128, 96, 2))
LARGE = tuple(Block(mid, out, 3, stride, fused=True) for mid, out, stride in WIDTHS)
NET = HandNet(64, 24, (*LARGE, *[Block(288, 96)] * 5), 160, head=Head("heatmap", 24))
STAGES = (Stage("dense", 48000),)


def config() -> Experiment:
    """Every view, either hand, any turn, looser and tighter crops than elsewhere, and crops that leave the picture."""
    look = Look(roll_deg=40.0, wild=0.15, palms=0.5, turned=0.2, yaw_deg=28.0, occluded=0.1)
    hands = RenderedHands(size_px=64, test_images=1024, look=look)
    vary = Augment(fill=(0.5, 0.9), shift=0.05, roll_deg=20.0, framed=0.3)
    return Experiment(
        name="photos",
        data=RedrawnHands(hands, images=131072, augment=vary),
        tracks=named(net=Track(NET, STAGES)),
        squeeze=named(),
        old_chip=U55_128,
        new_chip=U85_128,
        optim=Optim(batch=32, lr=3e-3, axes=0.1),
        baseline="net",
        target="net",
        save_every=2000,
    )


def sweep() -> Iterator[dict[str, object]]:
    """One recipe."""
    yield {}


EXPECT = {"rows.0.int8.error_box": (0.110, 0.015), "rows.0.npz.error_box": (0.081, 0.015)}
