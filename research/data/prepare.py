"""Sets up what a run may use but never fetches itself.

    python -m research.data.prepare mediapipe --into DIR [--wheel FILE]   the two landmark networks, Apache-2.0
    python -m research.data.prepare freihand ARCHIVE --into DIR           an unpacked FreiHAND archive of your own

Each can be run again: what is there and right is kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from research.data.freihand import SPLITS, prepare_freihand
from research.data.mediapipe import prepare_mediapipe


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
    for kind in (peers, photos):
        kind.add_argument("--into", type=Path, required=True, metavar="DIR", help="where it goes")
    return out


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns 0, 1 (one line says why), 2 (usage) or 130 (stopped)."""
    asked = parser().parse_args(words)
    try:
        if asked.what == "mediapipe":
            print(prepare_mediapipe(asked.into, asked.wheel))
            print(f"MediaPipe's networks and the licence above are in {asked.into}")
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
