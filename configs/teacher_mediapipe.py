"""A real teacher: does a small network learn more from MediaPipe's features than from the labels of renders alone?

Command:  python -m research.data.prepare mediapipe --into runs/peers, once; then
          python -m research.run configs/teacher_mediapipe.py
Time:     about 6 minutes on 2 CPU cores, a part of it the teacher's features of 2,048 renders, computed once.
Expect:   EXPECT below, checked against configs/results/teacher_mediapipe.json.
"""

from collections.abc import Iterator

from research.data.scene import Look
from research.data.synthetic import RenderedHands
from research.data.taught import TaughtHands
from research.nets import hand_net
from research.npu import U55_128, U85_128
from research.spec import Experiment, Optim, Stage, Track, named
from research.squeeze import Taught

TAPS = ("model_1/model/add_3/add", "model_1/model/add_8/add")  # planes of 14 x 14 and 7 x 7
NET = hand_net(64, 16, 48, (32, 24, 2), (96, 32, 2), (128, 32, 1), (128, 64, 2), (256, 64, 1), (256, 64, 1))


def config() -> Experiment:
    """One network twice: taught by labels alone, and by labels and MediaPipe full. Only human labels judge it."""
    dense = Stage("dense", 300, ("teacher",))
    hands = RenderedHands(size_px=64, test_images=512, look=Look())
    return Experiment(
        name="teacher_mediapipe",
        data=TaughtHands(hands, "full", images=2048, taps=TAPS),
        tracks=named(v1=Track(NET, (Stage("dense", 300),)), v2=Track(NET, (dense,))),
        squeeze=named(teacher=Taught(pairs=(("b2/add", TAPS[0]), ("b5/add", TAPS[1])))),
        claims=named(teacher="+3 %"),
        old_chip=U55_128,
        new_chip=U85_128,
        optim=Optim(batch=64, lr=5e-3),
    )


def sweep() -> Iterator[dict[str, object]]:
    """What of the teacher helps: its output, where it looks, which hands it finds alike."""
    weights = ("output", "attention", "mimicry")
    yield {}
    for kept in weights:
        yield {f"squeeze.teacher.{name}": 0.0 for name in weights if name != kept}


EXPECT = {"rows.2.error_box_int8": (0.326, 0.03), "rows.3.error_box_int8": (0.313, 0.03)}
