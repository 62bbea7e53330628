import base64

import numpy as np
import pytest

from research.report.gallery import picture, png_size
from tests.report.example import SIDE_PX, example_result


def test_errors_are_mean_distances_in_pixels_of_the_crop():
    hand = example_result()["gallery"][1]
    drawn = picture(hand)
    for prediction, name in zip(drawn.predictions, ("v1", "v2"), strict=True):
        apart = np.asarray(hand[name]) - np.asarray(hand["true"])
        assert prediction.error_px == pytest.approx(SIDE_PX * np.linalg.norm(apart, axis=-1).mean())


def test_bones_join_the_joints_of_five_fingers_at_the_wrist():
    drawn = picture(example_result()["gallery"][0])
    assert (drawn.width_px, drawn.height_px) == (SIDE_PX, SIDE_PX)
    assert len(drawn.true.bones) == 20
    assert len(drawn.true.joints) == 21
    wrist = drawn.true.joints[0]
    assert wrist == (round(0.5 * SIDE_PX, 2), round(0.9 * SIDE_PX, 2))
    assert sum(bone[:2] == wrist for bone in drawn.true.bones) == 5
    assert {bone[2:] for bone in drawn.true.bones} == set(drawn.true.joints[1:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not base64!", "is not base64"),
        ("abc", "is not base64"),
        (base64.b64encode(b"GIF89a").decode(), "does not hold a PNG"),
        (base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(16)).decode(), "without pixels"),
        ('"><script>', "is not base64"),
        ("é", "is not base64"),
    ],
)
def test_what_is_not_a_png_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        png_size(text)
