"""The smallest experiment that goes the whole way, training, checkpoints, referee and result, for `launch.chaos`."""

from launch.plan import Float, Int, Sweep
from research.data.scene import Look
from research.data.synthetic import RenderedHands
from research.nets import Block, HandNet
from research.npu import U55_128, U85_128
from research.spec import Experiment, Optim, Stage, Track, named


def config() -> Experiment:
    """One tiny network as V1 and as V2, so that it compiles once, and no link."""
    net = HandNet(32, 4, (Block(8, 8, 3, 2), Block(8, 8, 3, 1)), 8)
    track = Track(net, (Stage("dense", 240),))
    return Experiment(
        name="tiny",
        data=RenderedHands(size_px=32, test_images=16, look=Look()),
        tracks=named(v1=track, v2=track),
        squeeze=named(),
        old_chip=U55_128,
        new_chip=U85_128,
        optim=Optim(batch=8),
        save_every=60,
        calibration_images=16,
    )


def sweep() -> Sweep:
    """Learning rate and seed, for error and speed, in generations of four."""
    return Sweep(
        space={"optim.lr": Float(1e-3, 1e-1, log=True), "seed": Int(0, 3)},
        objectives={"error_px_int8": "min", "ms_referee": "min"},
        trials=8,
        sampler="random",
        generation=4,
    )
