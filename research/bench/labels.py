"""What the referee says of files we made: judged on the spot, in other processes where there are any.

A folder of earlier verdicts is optional and only saves time.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

from research.npu import Chip, LayerVerdict, Verdict, referee
from research.npu.referee import check_disable

_CHUNK = 8
Item = TypeVar("Item")
Result = TypeVar("Result")


def label(model: bytes, chip: Chip, disable: tuple[str, ...] = (), cache: Path | None = None) -> Verdict:
    """The referee's verdict; with a folder `cache`, that of an earlier run on the same file, chip and switches.

    The key is the file's bytes, what the compiler is told of the chip, and the switches. Raises as `referee`.
    """
    if cache is None:
        return referee(model, chip, disable)
    told = (chip.accelerator, chip.system_config, chip.memory_mode, chip.clock_mhz, chip.name, disable, 3)
    key = hashlib.sha256(model + repr(told).encode()).hexdigest()
    path = cache / key[:2] / f"{key[2:]}.json.gz"
    if path.is_file():
        return _thaw(json.loads(gzip.decompress(path.read_bytes())))
    verdict = referee(model, chip, disable)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_bytes(gzip.compress(json.dumps(dataclasses.asdict(verdict)).encode(), 1))
    part.replace(path)
    return verdict


def labels(
    models: Sequence[bytes],
    chip: Chip,
    what: str,
    disable: tuple[str, ...] = (),
    *,
    cache: Path | None = None,
    pool: Executor | None = None,
) -> list[Verdict]:
    """`label` of every file, in order, with a progress bar named after `what`.

    Raises:
      ValueError: an unknown switch, before anything is compiled (the compiler would ignore it).
    """
    judge = partial(label, chip=chip, disable=check_disable(disable), cache=cache)
    return list(shown(judge, models, f"{chip.name} {what}", pool))


def shown(
    function: Callable[[Item], Result], items: Sequence[Item], what: str, pool: Executor | None = None
) -> Iterator[Result]:
    """`function` of every item, in order, in the pool where there is one; a bar on the terminal says how far."""
    found: Iterable[Result] = (
        map(function, items) if pool is None else pool.map(function, items, chunksize=_CHUNK)
    )
    console = Console(stderr=True)
    yield from track(found, what, len(items), console=console, disable=not console.is_terminal)


def _thaw(found: dict[str, Any]) -> Verdict:
    rows: list[dict[str, Any]] = found.pop("layers")
    return Verdict(
        **found, layers=tuple(LayerVerdict(**{k: _frozen(v) for k, v in row.items()}) for row in rows)
    )


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
