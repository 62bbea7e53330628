r"""Run a command on a TPU VM: ask for it, wait, install, run, replace it when it is preempted, always delete it.

    python -m launch.tpu_vm --name sweep --project P --zone Z --topology v5e:2x4 --spot --max-chip-hours 40 \
        [--dry-run] -- python -m launch.sweep configs/v2.py --store gs://bucket/v2

The command must be one that goes on where it stopped (launch.sweep, launch.trial). Exit codes: 0 done; 1 it failed,
or the budget is spent, or too many slices were lost; 2 bad input; 129, 130, 143 stopped by SIGHUP, Ctrl-C, SIGTERM.
After each of them the slice has been deleted, or a line says in capitals that it was not.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from launch import tpu_commands as words
from launch.cloud_calls import call
from launch.cloud_end import (
    alone,
    checked_command,
    checked_name,
    checked_numbers,
    say,
    split_command,
    work_then_delete,
)
from launch.meter import Meter, estimate
from launch.tpu_life import Job, TpuVm, look
from launch.tpu_types import parse_slice


def dry_run(job: Job) -> list[str]:
    """The commands of an undisturbed life, in order."""
    seconds = job.run_seconds(Meter(job.slice.chips).seconds_left(job.max_chip_hours))
    commands = [
        words.archive(job.code),
        words.create(job.target, job.slice, job.runtime, job.spot, job.create_flags),
        words.describe(job.target),
        words.copy(job.target, job.code, job.connect_flags),
        words.ssh(job.target, "all", words.node_up(job.extras), job.connect_flags),
        words.ssh(job.target, job.worker, words.node_run(seconds, job.command), job.connect_flags),
        words.delete(job.target),
    ]
    return [shlex.join(command) for command in commands]


def pack(path: str) -> None:
    """The commit that is checked out, as an archive. Raises ValueError for changes that no commit holds."""
    changed = call(words.changed_files())
    if changed.code:
        raise ValueError(f"--code FILE is needed outside a git checkout: {changed.complaint}")
    if changed.out.strip():
        files = [line[3:] for line in changed.out.splitlines()]
        raise ValueError(f"commit first, workers get the commit; changed: {', '.join(files[:5])}")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    packed = call(words.archive(path))
    if packed.code:
        raise ValueError(f"git archive: {packed.complaint}")


def keep(job: Job, ledger: Path, adopt: bool, only_delete: bool) -> int:
    """Look after the slice until the command is done and the slice deleted; returns the exit code."""
    with alone(ledger):
        vm = TpuVm(job, ledger)
        state, why = look(job.target)
        if state == "UNKNOWN":
            raise ValueError(f"gcloud does not answer: {why}")
        if state != "ABSENT" and not (vm.meter.made or adopt):
            raise ValueError(
                f"{job.target.name} is {state} and not in {ledger}; --adopt takes it over (and deletes it at the end)"
            )
        if state != "ABSENT":
            vm.adopt()
        over = work_then_delete((lambda: None) if only_delete else vm.run, vm.delete)
        say(f"{over}; {vm.meter.chip_hours:.3f} chip-hours so far, kept in {ledger}")
        return over.code


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m launch.tpu_vm", description=__doc__, formatter_class=_Raw)
    add = out.add_argument
    add("--name", required=True, help="of the queued resource and of its TPU VM")
    add("--project", required=True)
    add("--zone", required=True)
    add("--topology", required=True, metavar="v5e:4x4", help="generation and shape, as for launch.precompile")
    add("--max-chip-hours", type=float, required=True, help="the budget: chips x hours, over all preemptions")
    add("--hours", type=float, help="what launch.precompile predicts; refused if it is over the budget")
    add("--spot", action="store_true", help="cheaper, and may be taken away at any time")
    add("--runtime", help="TPU VM image (default: the generation's)")
    add("--worker", choices=("0", "all"), default="0", help="where the command runs")
    add("--extras", default="gcs,sweep,tpu-aot", help="of pyproject.toml, to install on each worker")
    add("--code", metavar="FILE", help="archive of the checkout (default: made from the commit by git)")
    add("--ledger", type=Path, help="file of chip-hours used (default: runs/tpu_vm/NAME.json)")
    add("--adopt", action="store_true", help="take over a queued resource that the ledger does not know")
    add("--delete", action="store_true", help="only delete what an earlier call left")
    add("--poll", type=float, default=30.0, metavar="SECONDS", help="between two looks at its state")
    add("--save", type=float, default=120.0, metavar="SECONDS", help="for saving, before the budget ends")
    add("--max-losses", type=int, default=20, help="how many slices may be lost")
    add(
        "--create-flag", action="append", default=[], metavar="FLAG", help="one more word for gcloud's create"
    )
    add(
        "--connect-flag",
        action="append",
        default=[],
        metavar="FLAG",
        help="one more word for gcloud's ssh and scp",
    )
    add("--dry-run", action="store_true", help="print the commands and the estimate; run nothing")
    return out


class _Raw(argparse.RawDescriptionHelpFormatter):
    pass


def job_of(asked: argparse.Namespace, words_to_run: Sequence[str]) -> Job:
    """The arguments as a job. Raises ValueError, in one line, for what cannot work."""
    checked_numbers(max_chip_hours=asked.max_chip_hours, poll=asked.poll, save=asked.save)
    command = () if asked.delete else checked_command(words_to_run)
    slice_ = parse_slice(asked.topology)
    return Job(
        target=words.Target(checked_name(asked.name), asked.project, asked.zone),
        slice=slice_,
        runtime=asked.runtime or slice_.runtime,
        command=command,
        code=asked.code or f"dist/{words.CODE}.tar.gz",
        worker=asked.worker,
        extras=asked.extras,
        spot=asked.spot,
        max_chip_hours=asked.max_chip_hours,
        max_losses=asked.max_losses,
        poll_s=asked.poll,
        save_s=asked.save,
        create_flags=tuple(asked.create_flag),
        connect_flags=tuple(asked.connect_flag),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    own, command = split_command(arguments)
    asked = parser().parse_args(own)
    try:
        job = job_of(asked, command)
        lines = estimate(job.slice.chips, job.max_chip_hours, asked.hours)
        if asked.dry_run:
            print("\n".join([*dry_run(job), *(f"# {line}" for line in lines)]))
            return 0
        if not asked.code and not asked.delete:
            pack(job.code)
        elif not asked.delete and not Path(job.code).is_file():
            raise ValueError(f"--code {job.code}: no such file")
        for line in lines:
            say(line)
        ledger = asked.ledger or Path("runs/tpu_vm") / f"{job.target.name}.json"
        return keep(job, ledger, asked.adopt, asked.delete)
    except (ValueError, OSError) as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:  # before there was anything to delete
        return 130


if __name__ == "__main__":
    sys.exit(main())
