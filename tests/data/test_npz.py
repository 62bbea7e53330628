"""Files from outside: read and resized faithfully, or refused with one line that says why."""

import numpy as np
import pytest
from PIL import Image

from research.data.npz import read_npz, resize

POINTS = np.random.default_rng(0).uniform(-0.1, 1.1, (3, 21, 2))
GREY = np.random.default_rng(1).uniform(0, 1, (3, 40, 40))


def saved(tmp_path, **arrays):
    path = tmp_path / "judge.npz"
    np.savez(path, **arrays)
    return path


def test_arrays_of_the_right_size_come_back_as_they_are(tmp_path):
    images, keypoints = read_npz(saved(tmp_path, image=GREY, keypoints=POINTS), 40)
    np.testing.assert_array_equal(images, GREY.astype(np.float32))
    np.testing.assert_array_equal(keypoints, POINTS.astype(np.float32))
    assert images.dtype == keypoints.dtype == np.float32


def test_a_ramp_stays_the_same_ramp_at_any_size(tmp_path):
    ramp = np.broadcast_to((np.arange(200) + 0.5) / 200, (2, 120, 200))
    images, _ = read_npz(saved(tmp_path, image=ramp, keypoints=POINTS[:2]), 64)
    expected = (np.arange(64) + 0.5) / 64
    np.testing.assert_allclose(images[1, 30, 2:-2], expected[2:-2], atol=2e-3)
    assert images.shape == (2, 64, 64)


def test_shrinking_is_antialiased():
    stripes = np.tile([0.0, 1.0], 64)[None, None, :].repeat(128, axis=1)
    small = resize(stripes, 32)
    np.testing.assert_allclose(small[0, :, 2:-2], 0.5, atol=0.02)


def test_resize_agrees_with_another_implementation():
    image = np.asarray(GREY[:1, :40, :30], np.float32)
    theirs = Image.fromarray(image[0]).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(resize(image, 16)[0], np.asarray(theirs), atol=1e-5)


def test_many_images_are_resized_in_parts():
    many = np.random.default_rng(2).uniform(0, 1, (70, 20, 20)).astype(np.float32)
    np.testing.assert_allclose(resize(many, 16)[69], resize(many[69:], 16)[0], atol=1e-6)


def spoiled(array, value):
    copy = np.array(array)
    copy.flat[5] = value
    return copy


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": GREY}, "lacks keypoints"),
        ({"images": GREY}, "lacks image and keypoints.*holds images"),
        (
            {"image": GREY[..., None], "keypoints": POINTS},
            r"image must be \[N, H, W\] grey, got \[3, 40, 40, 1\]",
        ),
        ({"image": GREY, "keypoints": POINTS[:, :20]}, r"keypoints must be \[N, 21, 2\], got \[3, 20, 2\]"),
        ({"image": GREY, "keypoints": POINTS[:2]}, "3 images but 2 sets of keypoints"),
        ({"image": GREY[:0], "keypoints": POINTS[:0]}, "holds no examples"),
        ({"image": GREY[:, :0], "keypoints": POINTS}, "image must be"),
        ({"image": GREY * 255, "keypoints": POINTS}, "must lie in 0..1.*divide bytes by 255"),
        ({"image": spoiled(GREY, -0.2), "keypoints": POINTS}, "must lie in 0..1"),
        ({"image": spoiled(GREY, np.nan), "keypoints": POINTS}, "image holds values that are not finite"),
        ({"image": GREY, "keypoints": spoiled(POINTS, np.inf)}, "keypoints holds values that are not finite"),
        ({"image": GREY.astype(str), "keypoints": POINTS}, "image must hold numbers"),
        ({"image": GREY.astype(object), "keypoints": POINTS}, "cannot be read as an npz"),
    ],
)
def test_what_cannot_be_judged_is_one_clear_error(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_npz(saved(tmp_path, **arrays), 32)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_npz(tmp_path):
    path = saved(tmp_path, image=GREY, keypoints=POINTS)
    whole = path.read_bytes()
    for content in (b"", b"not a zip", whole[: len(whole) // 2], whole[:2000] + b"x" * 50 + whole[2050:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as an npz"):
            read_npz(path, 32)
    np.save(tmp_path / "plain.npy", GREY)
    with pytest.raises(ValueError, match="cannot be read as an npz"):
        read_npz(tmp_path / "plain.npy", 32)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_npz(tmp_path / "absent.npz", 32)
