"""Several trials of one shape in one process: their networks train side by side in one program, so that a small one
does not leave a chip idle. In the store each is what it would be alone, and may go on alone.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from launch.executors import Pack
from launch.job import Job, overrides
from launch.plan import Point
from launch.store import Store
from launch.trial import LOG, begin, conclude, folder_of, held, logged, spec_of, words_of, workdir_of, worked
from research.door import load
from research.train.together import shape_of

Work = Callable[[Sequence[list[str]]], int]  # the words of several research.run command lines to one exit code


def packs_of(job: Job, points: dict[int, Point], numbers: Iterable[int], most: int) -> list[Pack]:
    """Trials in packs of at most `most` of one shape, in the order of their first; others alone.

    Errors as `research.door.load`.
    """
    if most < 2:
        return [(number,) for number in numbers]
    packs, open_ = list[list[int]](), dict[object, list[int]]()
    for number in numbers:
        shape = shape_of(load(job.config, *overrides(points[number]), smoke=job.smoke))
        pack = open_.get(shape) if shape is not None else None
        if pack is None or len(pack) == most:
            packs.append(pack := [])
            open_[shape] = pack
        pack.append(number)
    return [tuple(pack) for pack in packs]


def side_by_side(lines: Sequence[list[str]]) -> int:
    """`python -m research.run` of each line in this process, side by side; imported late, for it brings jax."""
    return int(importlib.import_module("research.run").main_together(lines))


def run(store: Store, numbers: Sequence[int], work: Work = side_by_side) -> int:
    """Does the trials of a pack, or what is left of it; the exit code is that of `work`.

    Raises ValueError for a trial without a spec, OSError when the store fails.
    """
    with contextlib.ExitStack() as stack:
        left = [
            number for number in sorted(numbers) if not stack.enter_context(held(store, folder_of(number)))
        ]
        if not left:
            return 0
        workdirs = [stack.enter_context(workdir_of(store, f"{folder_of(number)}/run")) for number in left]
        stack.enter_context(logged(workdirs[0] / LOG))
        lines = [
            words_of(spec_of(store, number), workdir) for number, workdir in zip(left, workdirs, strict=True)
        ]
        for number, workdir in zip(left, workdirs, strict=True):
            begin(store, number, workdir)
            _refer(workdir, left[0], number)
        code = worked(lambda: work(lines))
        for number, workdir in zip(left, workdirs, strict=True):
            conclude(store, number, workdir, code)
    if code != 0:
        store.check()
    return code


def _refer(workdir: Path, first: int, number: int) -> None:
    if number != first:
        with (workdir / LOG).open("a") as log:
            log.write(f"side by side with trial {first}, whose log has what was said\n")
