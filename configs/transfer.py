"""Recipes that should carry a network from renders to photographs: head, loss, capacity and variation, one at a time.

Command:  python -m research.bench.transfer configs/transfer.py [--eval-npz FILE] [--peers runs/peers]
Time:     about 2 minutes a recipe on 2 CPU cores. Short runs: they do not finish networks.
Expect:   EXPECT below, checked against configs/results/transfer.json.
"""

from collections.abc import Iterator

from research.data.scene import Look
from research.data.synthetic import RenderedHands
from research.nets import hand_net
from research.npu import U55_128, U85_128
from research.spec import Experiment, Optim, Stage, Track, named

NET = hand_net(64, 16, 48, (32, 24, 2), (96, 32, 2), (128, 32, 1), (128, 64, 2), (256, 64, 1), (256, 64, 1))
HEAD, LOSS = "tracks.net.net.head", "optim.loss"


def config() -> Experiment:
    """One network, one stage, every view of the hand; `sweep` has the recipes."""
    return Experiment(
        name="transfer",
        data=RenderedHands(size_px=64, test_images=512, look=Look()),
        tracks=named(net=Track(NET, (Stage("dense", 400),))),
        squeeze=named(),
        old_chip=U55_128,
        new_chip=U85_128,
        optim=Optim(batch=64, lr=5e-3),
        baseline="net",
        target="net",
    )


def sweep() -> Iterator[dict[str, object]]:
    """Coordinates as they are, then each change alone."""
    yield {}
    yield {f"{HEAD}.hidden": 128}
    yield {f"{HEAD}.kind": "simcc", f"{HEAD}.hidden": 64}
    yield {f"{HEAD}.kind": "heatmap"}
    yield from ({LOSS: loss} for loss in ("l1", "wing", "mse"))
    yield {"tracks.net.net.stem": 24, "tracks.net.net.neck": 96}
    yield {"data.look.fill": (0.4, 0.9), "data.look.shift": 0.08}  # looser crops


EXPECT = {"rows.0.int8.error_box": (0.278, 0.03)}  # of 100 steps, 256 test images: too short to rank
