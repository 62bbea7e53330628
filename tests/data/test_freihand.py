"""A small archive in FreiHAND's layout: read, prepared, cropped; missing, truncated and mislabelled files refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from research.data import freihand
from research.data.freihand import (
    FILL,
    SIDE_PX,
    keypoints_px,
    prepare_freihand,
    read_annotations,
    read_crops,
)

SAMPLES, VERSIONS = 3, 2
RADIUS_PX = 4


def labels(seed: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Cameras [N,3,3] and joints [N,21,3] in m; the first hand reaches out of its picture."""
    rng = np.random.default_rng(seed)
    joints = rng.uniform(-0.07, 0.07, (samples, 21, 3)) + [0, 0, 0.7]
    joints[0, :, 0] += 0.12
    camera = np.array([[480.0, 0, SIDE_PX / 2], [0, 470.0, SIDE_PX / 2 + 3], [0, 0, 1]])
    return np.repeat(camera[None], samples, axis=0), joints


def write_split(root: Path, split: str, samples: int, versions: int) -> None:
    """Pictures with a white disc at joint 8 on a version's own grey, and their labels."""
    camera, joints = labels(len(split), samples)
    (root / split / "rgb").mkdir(parents=True)
    (root / f"{split}_K.json").write_text(json.dumps(camera.tolist()))
    (root / f"{split}_xyz.json").write_text(json.dumps(joints.tolist()))
    for i in range(samples * versions):
        version, sample = divmod(i, samples)
        picture = Image.new("RGB", (SIDE_PX, SIDE_PX), (30 + 40 * version, 40, 20))
        x, y = keypoints_px(camera, joints)[sample, 8]
        disc = (x - RADIUS_PX - 0.5, y - RADIUS_PX - 0.5, x + RADIUS_PX - 0.5, y + RADIUS_PX - 0.5)
        ImageDraw.Draw(picture).ellipse(disc, fill="white")
        picture.save(root / split / "rgb" / f"{i:08d}.jpg", quality=95)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    root = tmp_path / "archive"
    write_split(root, "training", SAMPLES, VERSIONS)
    write_split(root, "evaluation", 2, 1)
    return root


def test_projection_is_k_xyz_over_z() -> None:
    camera, joints = labels(0, 2)
    seen = keypoints_px(camera, joints)
    for n in range(2):
        for joint in range(21):
            wanted = camera[n] @ joints[n, joint]
            np.testing.assert_allclose(seen[n, joint], wanted[:2] / wanted[2])


def test_crops_show_their_keypoints(archive: Path, tmp_path: Path) -> None:
    folder = prepare_freihand(archive, tmp_path / "sets")
    crops = read_crops(folder, "training", 96)
    assert crops.image.shape == (SAMPLES * VERSIONS, 96, 96)
    assert crops.image.dtype == crops.keypoints.dtype == np.float32
    for image, points in zip(crops.image, crops.keypoints, strict=True):
        assert (points.max(axis=0) - points.min(axis=0)).max() == pytest.approx(FILL, abs=1e-5)
        if not 0.05 < points[8].min() < points[8].max() < 0.95:
            continue
        rows, columns = np.nonzero(image > 0.7)
        centre = np.array([columns.mean() + 0.5, rows.mean() + 0.5]) / 96
        np.testing.assert_allclose(centre, points[8], atol=0.75 / 96)
    np.testing.assert_array_equal(crops.keypoints[:SAMPLES], crops.keypoints[SAMPLES:])
    assert np.median(crops.image[1 + SAMPLES]) > np.median(crops.image[1]) + 0.02
    np.testing.assert_allclose(crops.xyz_m[:SAMPLES], labels(len("training"), SAMPLES)[1], rtol=1e-6)


def test_some_rows_and_the_other_split(archive: Path, tmp_path: Path) -> None:
    folder = prepare_freihand(archive, tmp_path / "sets")
    every = read_crops(folder, "training", 32)
    some = read_crops(folder, "training", 32, [4, 1])
    np.testing.assert_array_equal(some.image, every.image[[4, 1]])
    assert len(read_crops(folder, "evaluation", 32).image) == 2
    with pytest.raises(IndexError, match="index 6 is outside the 6 examples of training"):
        read_crops(folder, "training", 32, [0, 6])
    with pytest.raises(ValueError, match="no split 'test'"):
        read_crops(folder, "test", 32)
    with pytest.raises(ValueError, match="at least 16"):
        read_crops(folder, "training", 8)


def test_the_hand_outside_its_picture_is_on_black(archive: Path, tmp_path: Path) -> None:
    folder = prepare_freihand(archive, tmp_path / "sets")
    crop = read_crops(folder, "training", 64, [0])
    assert (crop.image[0] == 0).mean() > 0.05
    assert crop.keypoints[0].min() >= 0
    assert crop.keypoints[0].max() <= 1


def test_preparing_again_touches_nothing(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare_freihand(archive, tmp_path / "sets")
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    monkeypatch.setattr(freihand, "_checked", None)
    assert prepare_freihand(archive, tmp_path / "sets") == folder
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def drop(root: Path) -> None:
    (root / "training_xyz.json").unlink()


def cut_labels(root: Path) -> None:
    file = root / "training_K.json"
    file.write_text(file.read_text()[:-20])


def shorten(root: Path) -> None:
    file = root / "training_K.json"
    file.write_text(json.dumps(json.loads(file.read_text())[:-1]))


def flatten(root: Path) -> None:
    file = root / "training_xyz.json"
    file.write_text(json.dumps([row[0] for row in json.loads(file.read_text())]))


def lose_a_number(root: Path) -> None:
    file = root / "training_xyz.json"
    joints = np.array(json.loads(file.read_text()))
    joints[0, 0, 0] = np.nan
    file.write_text(json.dumps(joints.tolist()))


def mislabel(root: Path) -> None:
    file = root / "training_xyz.json"
    joints = np.array(json.loads(file.read_text()))
    joints[1, :, 1] += 0.5
    file.write_text(json.dumps(joints.tolist()))


def turn_away(root: Path) -> None:
    file = root / "training_xyz.json"
    joints = np.array(json.loads(file.read_text()))
    joints[2, 4, 2] *= -1
    file.write_text(json.dumps(joints.tolist()))


def lose_a_picture(root: Path) -> None:
    (root / "training" / "rgb" / "00000002.jpg").unlink()


def lose_the_last_picture(root: Path) -> None:
    (root / "training" / "rgb" / "00000005.jpg").unlink()


def lose_all_pictures(root: Path) -> None:
    for file in (root / "training" / "rgb").iterdir():
        file.unlink()


def cut_a_picture(root: Path) -> None:
    file = root / "training" / "rgb" / "00000003.jpg"
    file.write_bytes(file.read_bytes()[:700])


def shrink_a_picture(root: Path) -> None:
    Image.new("RGB", (64, 64)).save(root / "training" / "rgb" / "00000003.jpg")


@pytest.mark.parametrize(
    ("damage", "kind", "words"),
    [
        (drop, FileNotFoundError, r"training_xyz\.json is missing: unpack"),
        (cut_labels, ValueError, r"training_K\.json is damaged"),
        (shorten, ValueError, r"training_K\.json has 2 samples but training_xyz\.json has 3"),
        (flatten, ValueError, r"must hold \[21, 3\] numbers a sample, got shape \[3, 3\]"),
        (lose_a_number, ValueError, "not finite"),
        (mislabel, ValueError, r"sample 1 of training is mislabelled.*1 such"),
        (turn_away, ValueError, "sample 2 of training is mislabelled"),
        (lose_a_picture, FileNotFoundError, r"00000002\.jpg is missing"),
        (lose_the_last_picture, FileNotFoundError, r"00000005\.jpg is missing: 3 samples, 5 pictures"),
        (lose_all_pictures, FileNotFoundError, "no pictures in"),
        (cut_a_picture, ValueError, r"00000003\.jpg is no whole JPEG"),
        (shrink_a_picture, ValueError, r"00000003\.jpg is a JPEG of 64x64 px"),
    ],
)
def test_damage_is_one_clear_error_and_leaves_nothing(archive, tmp_path, damage, kind, words) -> None:
    damage(archive)
    sets = tmp_path / "sets"
    with pytest.raises(kind, match=words) as refused:
        prepare_freihand(archive, sets)
    assert "\n" not in str(refused.value)
    assert [path for path in sets.rglob("*") if path.is_file()] == []


def test_an_unknown_split_is_refused(archive: Path) -> None:
    with pytest.raises(ValueError, match="no split 'train' of FreiHAND: choose training or evaluation"):
        read_annotations(archive, "train")


def test_a_damaged_set_says_what_to_do(archive: Path, tmp_path: Path) -> None:
    folder = prepare_freihand(archive, tmp_path / "sets", ["evaluation"])
    (file,) = folder.glob("*array_record*")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"is damaged .*run prepare_freihand again"):
        read_crops(folder, "evaluation", 32)
    with pytest.raises(FileNotFoundError, match="no prepared data set"):
        read_crops(tmp_path, "evaluation", 32)
