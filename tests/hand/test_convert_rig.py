"""The converter, on files written here in the layouts of the three packages: the committed rig comes back."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from research.hand.convert_rig import (
    Glb,
    handy_pose,
    iwer_pose,
    main,
    rig_of,
    rotations_from_rest,
)
from research.hand.rig import NAMES, POSES, globals_of, load_rig, recorded_poses

RIG = load_rig()
FLIP = np.diag([-1.0, 1.0, 1.0, 1.0])


def glb(names: tuple[str, ...] = NAMES) -> bytes:
    """The committed rig as a .glb file whose joints come in reverse order, its vertices interleaved with padding."""
    count, order = len(RIG.vertices_m), np.arange(25)[::-1]
    inverse = np.linalg.inv(np.asarray(RIG.bind, np.float64))[order].astype("<f4")
    padded = np.concatenate([RIG.vertices_m, np.full((count, 1), np.nan)], axis=1).astype("<f4")
    joints = np.argsort(order)[RIG.bones].astype("<u2")
    blobs = [
        padded.tobytes(),
        joints.tobytes(),
        RIG.weights.astype("<f4").tobytes(),
        RIG.triangles.astype("<u2").tobytes(),
        inverse.transpose(0, 2, 1).tobytes(),
    ]
    views, start = [], 0
    for i, blob in enumerate(blobs):
        views.append({"byteOffset": start} | ({"byteStride": 16} if i == 0 else {}))
        start += len(blob)
    shapes = [
        (5126, "VEC3", count),
        (5123, "VEC4", count),
        (5126, "VEC4", count),
        (5123, "SCALAR", 6942),
        (5126, "MAT4", 25),
    ]
    told = {
        "nodes": [{"name": names[i]} for i in order],
        "skins": [{"joints": list(range(25)), "inverseBindMatrices": 4}],
        "meshes": [
            {"primitives": [{"indices": 3, "attributes": {"POSITION": 0, "JOINTS_0": 1, "WEIGHTS_0": 2}}]}
        ],
        "accessors": [
            {"bufferView": i, "componentType": kind, "type": width, "count": n}
            for i, (kind, width, n) in enumerate(shapes)
        ],
        "bufferViews": views,
    }
    text = json.dumps(told).encode()
    text += b" " * (-len(text) % 4)
    binary = b"".join(blobs)
    body = (
        struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    )
    return b"glTF" + struct.pack("<II", 2, 12 + len(body)) + body


def places(pose: str) -> np.ndarray:
    """Joint places of a recorded pose, the wrist turned and moved."""
    rotations = recorded_poses()[POSES.index(pose)].copy()
    rotations[0] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    out = np.asarray(globals_of(RIG, rotations), np.float64)
    out[:, :3, 3] += [0.3, -0.2, 1.0]
    return out


def handy(pose: str) -> bytes:
    left = np.zeros((25, 4, 4))
    numbers = [np.array([25.0]), left.ravel(), places(pose).transpose(0, 2, 1).ravel(), np.ones(50)]
    return np.concatenate(numbers).astype("<f4").tobytes()


def iwer(pose: str) -> str:
    rows = {name: (FLIP @ m @ FLIP).T.ravel().tolist() for name, m in zip(NAMES, places(pose), strict=True)}
    lines = [
        f"'{name}': {{\n offsetMatrix: [{', '.join(map(str, row))}],\n }}," for name, row in rows.items()
    ]
    return "export const pose = { jointTransforms: {" + "\n".join(lines) + "} };"


def test_a_glb_file_gives_the_rig() -> None:
    found = rig_of(glb())
    np.testing.assert_array_equal(found.vertices_m, RIG.vertices_m)
    np.testing.assert_array_equal(found.triangles, RIG.triangles)
    np.testing.assert_array_equal(found.bones, RIG.bones)
    np.testing.assert_allclose(found.weights, RIG.weights, atol=1e-7)
    np.testing.assert_allclose(found.bind, RIG.bind, atol=1e-6)


def test_both_formats_give_the_recorded_rotations() -> None:
    bind = np.asarray(RIG.bind, np.float64)
    for pose in ("fist", "vulcan"):
        for found in (handy_pose(handy(pose)), iwer_pose(iwer(pose))):
            np.testing.assert_allclose(found, places(pose), atol=1e-6)
            rotations = rotations_from_rest(bind, found)
            np.testing.assert_allclose(rotations, recorded_poses()[POSES.index(pose)], atol=2e-5)


def test_the_command_writes_both_files(tmp_path: Path) -> None:
    (tmp_path / "right.glb").write_bytes(glb())
    for pose in POSES:
        (tmp_path / f"{pose}.handpose").write_bytes(handy(pose))
    for file, pose in (("pinch", "pinch"), ("point", "aim"), ("relaxed", "relaxed")):
        (tmp_path / f"{file}.js").write_text(iwer(pose))
    (tmp_path / "out").mkdir()
    assert main([str(tmp_path / "right.glb"), *[str(tmp_path)] * 2, str(tmp_path / "out")]) == 0
    with np.load(tmp_path / "out" / "recorded_poses.npz") as file:
        np.testing.assert_allclose(file["rotations"], recorded_poses(), atol=2e-5)
    with np.load(tmp_path / "out" / "webxr_hand.npz") as file:
        np.testing.assert_array_equal(file["vertices_m"], RIG.vertices_m)


def test_other_files_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"not a \.glb file \(5 bytes"):
        Glb(b"hello")
    with pytest.raises(ValueError, match=r"its joints are not WebXR's: .*elbow"):
        rig_of(glb(("elbow", *NAMES[1:])))
    with pytest.raises(ValueError, match=r"not a \.handpose file"):
        handy_pose(handy("fist")[:400])
    with pytest.raises(ValueError, match="no matrix of ring-finger-tip"):
        iwer_pose(iwer("fist").replace("ring-finger-tip", "tail"))
    assert main(["one"]) == 2
    assert "RIGHT.glb" in capsys.readouterr().err
