"""What the referee says of files we made, kept under .cache/ by content so that a bench can be stopped and resumed."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from research.npu import Chip, LayerVerdict, Verdict, referee

CACHE = Path(".cache/fidelity")


def label(model: bytes, chip: Chip, disable: tuple[str, ...] = (), *, cache: Path = CACHE) -> Verdict:
    """The referee's verdict, from the cache where the same file, chip and switches were judged before.

    The key is the file's bytes, every number of the chip that the compiler is told, and the switches.
    Raises as `referee`.
    """
    told = (chip.accelerator, chip.system_config, chip.memory_mode, chip.clock_mhz, chip.name, disable, 2)
    key = hashlib.sha256(model + repr(told).encode()).hexdigest()
    path = cache / key[:2] / f"{key[2:]}.json.gz"
    if path.is_file():
        return _thaw(json.loads(gzip.decompress(path.read_bytes())))
    verdict = referee(model, chip, disable)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(gzip.compress(json.dumps(dataclasses.asdict(verdict)).encode(), 1))
    part.replace(path)
    return verdict


def labels(
    models: Sequence[bytes], chip: Chip, what: str, disable: tuple[str, ...] = (), *, cache: Path = CACHE
) -> Iterator[Verdict]:
    """`label` of every file, with a progress bar named after `what`."""
    for model in tqdm(models, desc=f"{chip.name} {what}", disable=None):
        yield label(model, chip, disable, cache=cache)


def _thaw(found: dict[str, Any]) -> Verdict:
    rows = found.pop("layers")
    layers = tuple(
        LayerVerdict(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}) for row in rows
    )
    return Verdict(**found, layers=layers)
