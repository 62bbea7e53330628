"""Makes `assets/webxr_hand.npz` and `assets/recorded_poses.npz` from the files of three npm packages (all MIT).

    python -m research.hand.convert_rig RIGHT.glb HANDY_FOLDER IWER_FOLDER OUT_FOLDER

`RIGHT.glb` is `dist/profiles/generic-hand/right.glb` of @webxr-input-profiles/assets 1.0.20, `HANDY_FOLDER` is
`poses/` of handy-work 3.1.13, `IWER_FOLDER` is `lib/device/configs/hand/` of iwer 2.5.0.
Run once; what it writes is committed.
"""

from __future__ import annotations

import json
import re
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.hand.rig import NAMES, PARENTS, POSES, Rig

_TYPES = {5121: "u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_IWER = {"pinch": "pinch", "aim": "point", "relaxed": "relaxed"}


class Glb:
    """The chunks of a binary glTF 2.0 file (Khronos specification, section 4.4). ValueError for anything else."""

    def __init__(self, data: bytes) -> None:
        """Splits the file into its JSON and its binary chunk."""
        if len(data) < 20 or data[:4] != b"glTF":
            raise ValueError(f"not a .glb file ({len(data)} bytes, no glTF mark)")
        chunks, at = {}, 12
        while at < len(data):
            size, kind = struct.unpack_from("<I4s", data, at)
            chunks[kind], at = data[at + 8 : at + 8 + size], at + 8 + size
        self.json, self.binary = json.loads(chunks[b"JSON"]), chunks[b"BIN\0"]

    def array(self, index: int) -> np.ndarray:
        """An accessor's numbers `[count, width]`."""
        accessor: dict[str, Any] = self.json["accessors"][index]
        view = self.json["bufferViews"][accessor["bufferView"]]
        kind, width = np.dtype(_TYPES[accessor["componentType"]]), _WIDTHS[accessor["type"]]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        steps = (view.get("byteStride", kind.itemsize * width), kind.itemsize)
        return np.ndarray((accessor["count"], width), kind, self.binary, start, steps).copy()


def rig_of(data: bytes) -> Rig:
    """The rig in a .glb file of a generic WebXR hand, its joints in the order of `NAMES`. ValueError for others."""
    glb = Glb(data)
    skin, primitive = glb.json["skins"][0], glb.json["meshes"][0]["primitives"][0]
    names = [glb.json["nodes"][node]["name"] for node in skin["joints"]]
    if sorted(names) != sorted(NAMES):
        raise ValueError(f"its joints are not WebXR's: {sorted(set(names) ^ set(NAMES))}")
    order = [names.index(name) for name in NAMES]
    back = np.argsort(order)
    inverse = glb.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
    attributes = primitive["attributes"]
    weights = glb.array(attributes["WEIGHTS_0"]).astype(np.float64)
    found = {
        "vertices_m": glb.array(attributes["POSITION"]).astype(np.float32),
        "triangles": glb.array(primitive["indices"]).reshape(-1, 3).astype(np.uint16),
        "bones": back[glb.array(attributes["JOINTS_0"]).astype(int)].astype(np.uint8),
        "weights": (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32),
        "bind": np.linalg.inv(inverse.astype(np.float64))[order].astype(np.float32),
    }
    return Rig(**found)


def rotations_from_rest(bind: np.ndarray, places: np.ndarray) -> np.ndarray:
    """`[25,3,3]`: what turned every joint from `bind` to `places` (both `[25,4,4]`), each in its own frame."""
    out = [np.eye(3)]
    for joint, parent in enumerate(PARENTS[1:], 1):
        rest = bind[parent, :3, :3].T @ bind[joint, :3, :3]
        u, _, vt = np.linalg.svd(rest.T @ places[parent, :3, :3].T @ places[joint, :3, :3])
        out.append(u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt)
    return np.stack(out)


def handy_pose(data: bytes) -> np.ndarray:
    """The right hand's places `[25,4,4]` in a `.handpose` file: a count, then left and right column-major matrices."""
    numbers = np.frombuffer(data, "<f4").astype(np.float64)
    if len(numbers) < 1 + 2 * 25 * 16 or int(numbers[0]) != 25:
        raise ValueError("not a .handpose file of 25 joints")
    return numbers[1 + 400 : 1 + 800].reshape(25, 4, 4).transpose(0, 2, 1)


def iwer_pose(text: str) -> np.ndarray:
    """Places `[25,4,4]` of a right hand from one of iwer's poses, which are left hands: column-major, by joint."""
    pattern = re.compile(r"""['"]?([\w-]+)['"]?:\s*\{\s*offsetMatrix:\s*\[([^\]]*)\]""")
    found = {name: [float(n) for n in row.split(",") if n.strip()] for name, row in pattern.findall(text)}
    missing = [name for name in NAMES if len(found.get(name, ())) != 16]
    if missing:
        raise ValueError(f"no matrix of {missing[0]} in the text")
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    return np.stack([flip @ np.reshape(found[name], (4, 4)).T @ flip for name in NAMES])


def main(words: Sequence[str]) -> int:
    """The command line; returns 0, or 2 for bad input."""
    if len(words) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    glb, handy, iwer, out = map(Path, words)
    rig = rig_of(glb.read_bytes())
    bind = np.asarray(rig.bind, np.float64)
    places = [
        iwer_pose((iwer / f"{_IWER[name]}.js").read_text())
        if name in _IWER
        else handy_pose((handy / f"{name}.handpose").read_bytes())
        for name in POSES
    ]
    rotations = np.stack([rotations_from_rest(bind, place) for place in places]).astype(np.float32)
    np.savez_compressed(out / "webxr_hand.npz", **rig._asdict())
    np.savez_compressed(out / "recorded_poses.npz", rotations=rotations)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
