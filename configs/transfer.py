"""Recipes that should carry a network from renders to photographs: net, head, loss, variation, one change at a time.

Command:  python -m research.bench.transfer configs/transfer.py --save [--eval-npz FILE] [--peers runs/peers]
Time:     20 minutes on 2 CPU cores. Short runs of what configs/photos.py finishes.
Expect:   EXPECT below, checked against configs/results/transfer.json.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from research.nets import Block
from research.spec import Experiment, Stage, Track, load, named

HEAD = "tracks.net.net.head"
STAGES = (Stage("dense", 1000),)
LARGE = ((48, 32, 2), (64, 32, 1), (128, 96, 2), *[(104, 96, 1)] * 5)
FULL = tuple(Block(mid, out, 3, stride, fused=True) for mid, out, stride in LARGE)
INVERTED = (Block(240, 96, 5), Block(288, 96), Block(288, 96, 5), Block(288, 96), Block(288, 96, 5))


def config() -> Experiment:
    """The data of photos.py, a fiftieth of its steps; `net` has full convolutions, `depthwise` inverted residuals."""
    exp = load(Path(__file__).parent / "photos.py")
    net = replace(exp.tracks["net"].net, blocks=FULL)
    depthwise = replace(net, blocks=(*FULL[:3], *INVERTED))
    hands = replace(exp.data.hands, test_images=512)
    return replace(
        exp,
        name="transfer",
        data=replace(exp.data, hands=hands, images=16384),
        squeeze=named(),
        tracks=named(net=Track(net, STAGES), depthwise=Track(depthwise, STAGES)),
    )


def sweep() -> Iterator[dict[str, object]]:
    """As it is, then each change alone."""
    yield {}
    yield {"target": "depthwise", "baseline": "depthwise"}
    yield {f"{HEAD}.kind": "simcc", f"{HEAD}.hidden": 64}
    yield {f"{HEAD}.bins": 0, f"{HEAD}.kind": "coordinates", f"{HEAD}.hidden": 64}
    yield from ({"optim.loss": loss} for loss in ("l1", "wing", "mse"))
    yield {"optim.axes": 0.0}
    yield {"data.augment.framed": 0.0}  # no crop leaves its picture
    yield {"data.images": 2048}  # fewer hands, passed more often
    yield {"data.hands.look.turned": 0.0, "data.hands.look.wild": 0.0}  # usual views alone


EXPECT = {"rows.0.int8.error_box": (0.223, 0.02), "rows.0.npz.error_box": (0.154, 0.03)}
