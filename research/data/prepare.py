"""Sets up what a run may use but never fetches itself.

    python -m research.data.prepare mediapipe --into DIR [--wheel FILE]   the two landmark networks, Apache-2.0
    python -m research.data.prepare freihand ARCHIVE --into DIR           an unpacked FreiHAND archive of your own
    python -m research.data.prepare photographs FOLDER --peers DIR --into FILE.npz   labelled by MediaPipe, to judge on

Each can be run again: what is there and right is kept.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from research.data.freihand import SPLITS, prepare_freihand
from research.data.labelled import label, photographs
from research.data.mediapipe import load_peer, prepare_mediapipe


def parser() -> argparse.ArgumentParser:
    """The arguments of the command line."""
    form = argparse.RawDescriptionHelpFormatter
    out = argparse.ArgumentParser(
        prog="python -m research.data.prepare", description=__doc__, formatter_class=form
    )
    kinds = out.add_subparsers(dest="what", required=True)
    peers = kinds.add_parser("mediapipe", help="fetch MediaPipe's hand landmark networks and check them")
    peers.add_argument("--wheel", type=Path, metavar="FILE", help="the wheel; without it pip fetches it")
    photos = kinds.add_parser("freihand", help="check and convert an unpacked FreiHAND archive")
    photos.add_argument("archive", type=Path, help="the folder with training_xyz.json")
    photos.add_argument("--splits", nargs="+", default=list(SPLITS), metavar="SPLIT", help=" ".join(SPLITS))
    own = kinds.add_parser("photographs", help="crops of single hands, labelled by MediaPipe's full network")
    own.add_argument("folder", type=Path, help="photographs, at any depth")
    own.add_argument("--peers", type=Path, required=True, metavar="DIR", help="where its networks are")
    own.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth photograph")
    for kind in (peers, photos, own):
        kind.add_argument("--into", type=Path, required=True, metavar="DIR", help="where it goes")
    return out


def _labelled(asked: argparse.Namespace) -> int:
    """Writes the npz of photographs, whole or not at all; how many hands are in it."""
    peer = load_peer(asked.peers, "full")
    crops, keypoints = label(photographs(asked.folder)[:: max(asked.every, 1)], peer)
    aside = asked.into.with_name(f".{asked.into.name}.{os.getpid()}")
    asked.into.parent.mkdir(parents=True, exist_ok=True)
    with aside.open("wb") as file:
        np.savez_compressed(file, image=np.asarray(crops / np.float32(255)), keypoints=keypoints)
    aside.replace(asked.into)
    return len(crops)


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns 0, 1 (one line says why), 2 (usage) or 130 (stopped)."""
    asked = parser().parse_args(words)
    try:
        if asked.what == "mediapipe":
            print(prepare_mediapipe(asked.into, asked.wheel))
            print(f"MediaPipe's networks and the licence above are in {asked.into}")
        elif asked.what == "photographs":
            print(f"{_labelled(asked)} hands are in {asked.into}")
        else:
            print(f"FreiHAND is in {prepare_freihand(asked.archive, asked.into, asked.splits)}")
    except KeyboardInterrupt:
        print("stopped; nothing is left half-written", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
