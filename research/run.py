"""The command line: `python -m research.run configs/v2.py [a.b=value ...] [--smoke] [--workdir DIR]`.

Trains, squeezes, exports, has the referee time it, and reports. The same command goes on after any interruption.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import jax

from research.door import find_arm, load
from research.report.job import reproduce, reproduce_together
from research.report.judge import judge
from research.train.hosts import is_first, several
from research.train.progress import Reporter
from research.train.runtime import prepare_runtime
from research.train.signals import interrupt, noting
from research.train.together import Trial

INTERRUPTED, TERMINATED, FAILED = 130, 143, 1


def parser() -> argparse.ArgumentParser:
    """The arguments of the command line."""
    out = argparse.ArgumentParser(prog="python -m research.run", description=__doc__, formatter_class=_Raw)
    out.add_argument("config", help="a config file, such as configs/v2.py")
    out.add_argument(
        "overrides", nargs="*", metavar="field.field=value", help="typed overrides of the config"
    )
    out.add_argument(
        "--workdir", type=Path, help="where everything lands (default: runs/<name of the config>)"
    )
    out.add_argument("--smoke", action="store_true", help="shrink the config to seconds (its own workdir)")
    out.add_argument(
        "--devices",
        type=int,
        help="devices to split batches over (0: all; default 1, with several processes all)",
    )
    out.add_argument(
        "--model", type=int, default=1, help="groups of devices to split wide kernels over (default 1)"
    )
    out.add_argument(
        "--arm", default="", help="which network --eval-npz judges (default: the target, every link)"
    )
    out.add_argument(
        "--eval-npz",
        type=Path,
        metavar="FILE",
        help="judge on image [N,H,W], keypoints [N,21,2]; no training",
    )
    out.add_argument(
        "--tflite", type=Path, metavar="FILE", help="with --eval-npz: judge this .tflite instead"
    )
    out.add_argument(
        "--data", default="", metavar="SET", help="train and test on freihand or npz:FILE instead of renders"
    )
    out.add_argument(
        "--data-dir",
        type=Path,
        default=Path("runs/sets"),
        metavar="DIR",
        help="where research.data.prepare put FreiHAND (default runs/sets)",
    )
    out.add_argument(
        "--gallery", type=Path, metavar="HTML", help="with --eval-npz: a page of the best and worst hands"
    )
    out.add_argument("--quiet", action="store_true", help="no progress, only the table")
    return out


class _Raw(argparse.RawDescriptionHelpFormatter):
    pass


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code: 0, 1 (one line says why), 2 (usage), 130 or 143 (interrupted)."""
    args = parser().parse_intermixed_args(argv)
    return _ended(lambda: _run(args))


def main_together(lines: Sequence[list[str]]) -> int:
    """Several command lines of one shape in this process, side by side; each may say CONFIG, overrides, --smoke and
    --workdir. The exit code of `main`."""
    asked = [parser().parse_intermixed_args(line) for line in lines]
    return _ended(lambda: _run_together(asked))


def _ended(run: Callable[[], int]) -> int:
    try:
        with _interrupts():
            return run()
    except (ValueError, KeyError, TypeError, OSError, ModuleNotFoundError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as stop:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return TERMINATED if stop.args else INTERRUPTED


@contextmanager
def _interrupts() -> Iterator[None]:
    """SIGTERM interrupts as Ctrl-C does; with several processes both wait until all agree."""
    if several():
        with noting():
            yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise interrupt(signum)


def _run(args: argparse.Namespace) -> int:
    prepare_runtime()
    exp = load(args.config, *args.overrides, smoke=args.smoke, data=args.data, data_dir=args.data_dir)
    name = Path(args.config).stem + (f"-{args.data.partition(':')[0]}" if args.data else "")
    workdir = args.workdir or Path("runs") / (name + ("-smoke" if args.smoke else ""))
    if args.tflite and not args.eval_npz:
        raise ValueError("--tflite needs --eval-npz FILE: what should it be judged on?")
    if args.gallery and not args.eval_npz:
        raise ValueError("--gallery needs --eval-npz FILE: which hands should it show?")
    if args.eval_npz:
        if several():
            raise ValueError("--eval-npz judges in one process")
        arm = find_arm(exp, args.arm)
        print(json.dumps(judge(exp, arm, workdir, args.eval_npz, args.tflite, args.gallery)))
        return 0
    devices = int(not several()) if args.devices is None else args.devices
    if devices > jax.device_count():
        raise ValueError(f"--devices {devices}: only {jax.device_count()} found")
    reproduce(
        exp,
        workdir,
        overrides=tuple(args.overrides),
        devices=devices,
        model=args.model,
        reporter=Reporter(args.quiet or not is_first()),
    )
    return 0


def _run_together(asked: Sequence[argparse.Namespace]) -> int:
    prepare_runtime()
    trials = [Trial(load(args.config, *args.overrides, smoke=args.smoke), args.workdir) for args in asked]
    overrides = [tuple(args.overrides) for args in asked]
    reproduce_together(trials, overrides=overrides, devices=0, reporter=Reporter(asked[0].quiet))
    return 0


if __name__ == "__main__":
    sys.exit(main())
