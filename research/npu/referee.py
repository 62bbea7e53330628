"""The referee: Arm's own compiler (ethos-u-vela, its native part `ethosu.regor`) judges a .tflite in process.

It is a compiler's estimate, not silicon. One network takes about 0.1 s. A layer is called by the name of the
output tensor of its operator in the file, which is the name of its site in the network.
"""

import contextlib
import difflib
import multiprocessing
import os
import pathlib
import tempfile
import types
from collections.abc import Iterator, Sequence
from typing import Any

from research.graph.flat import operator_names
from research.npu.chip import Chip
from research.npu.verdict import Verdict, read

DISABLE = ("Sparsity", "Grouping", "WeightBuffering", "FMStaging")  # the clean ablations


def referee(model: bytes, chip: Chip, disable: tuple[str, ...] = ()) -> Verdict:
    """Compiles `model` for `chip` in this process and returns what the compiler expects of it.

    Only for files made by this project's exporter: the compiler is native code and a damaged file can end the
    process. For any other file use `referee_foreign`.

    Args:
      model: bytes of a fully quantised .tflite.
      chip: its `accelerator`, `system_config` and `memory_mode` are the compiler's settings.
      disable: compiler features switched off, of "Sparsity", "Grouping", "WeightBuffering", "FMStaging".

    Raises:
      ModuleNotFoundError: the optional package is missing.
      ValueError: an unknown feature (the compiler would ignore it silently), or not a sound .tflite.
      RuntimeError: the compiler refused the network.
    """
    disable = check_disable(disable)
    names = operator_names(model)
    regor = _regor()
    try:
        with _silence():
            result = regor.compile(
                _architecture(chip),
                bytes(model),
                "TFLITE",
                _system_text(chip),
                _options_text(chip, disable),
                False,
            )
    except Exception as error:
        raise RuntimeError(
            f"the compiler refused the network for {chip.name}: {str(error).strip()}"
        ) from error
    return read(result, names, chip)


def referee_foreign(
    model: bytes, chip: Chip, disable: tuple[str, ...] = (), *, timeout_s: float = 60.0
) -> Verdict:
    """`referee` in a child process: a file from elsewhere cannot end or hang this one.

    Raises, beside what `referee` raises:
      ValueError: the compiler died on the file.
      TimeoutError: no answer within `timeout_s` seconds.
    """
    check_disable(disable)
    operator_names(model)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_child, args=(theirs, chip, disable), daemon=True)
    child.start()
    theirs.close()
    try:
        ours.send(
            bytes(model)
        )  # not as an argument: a start with more than a pipe holds hangs if the child dies
        if not ours.poll(timeout_s):
            raise TimeoutError(f"the compiler gave no answer within {timeout_s:g} s: raise timeout_s")
        answer = ours.recv()
    except (EOFError, ConnectionError):
        child.join()
        raise ValueError(
            f"the compiler died on this file (exit code {child.exitcode}): it is not a sound .tflite"
        ) from None
    finally:
        if child.is_alive():
            child.terminate()
        child.join()
        ours.close()
    if isinstance(answer, Exception):
        raise answer
    return answer


def check_disable(disable: Sequence[str]) -> tuple[str, ...]:
    """Returns `disable` if every name is a clean ablation, else ValueError naming the nearest one."""
    if isinstance(disable, str):
        raise ValueError(
            f"disable must be a tuple of names, got the string {disable!r}: write ({disable!r},)"
        )
    for name in disable:
        if name not in DISABLE:
            near = difflib.get_close_matches(name, DISABLE, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(DISABLE)}"
            raise ValueError(f"unknown compiler feature {name!r} in disable: {hint}")
    return tuple(disable)


def _child(pipe: Any, chip: Chip, disable: tuple[str, ...]) -> None:
    try:
        answer: Verdict | Exception = referee(pipe.recv(), chip, disable)
    except (ValueError, RuntimeError, ModuleNotFoundError) as error:
        answer = error
    pipe.send(answer)
    pipe.close()


def _regor() -> types.ModuleType:
    try:
        from ethosu import regor
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("needs the optional package ethos-u-vela: pip install '.[npu]'") from error
    return regor


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Sends what native code prints to a temporary file, restoring the streams afterwards."""
    saved = os.dup(1), os.dup(2)
    try:
        with tempfile.TemporaryFile() as sink:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
            yield
    finally:
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        os.close(saved[0])
        os.close(saved[1])


def _architecture(chip: Chip) -> str:
    return {"u85": "EthosU85", "u55": "EthosU55"}[chip.family]


def _system_text(chip: Chip) -> str:
    import ethosu

    ini = pathlib.Path(next(iter(ethosu.__path__))) / "config_files" / "Arm" / "vela.ini"
    head = f"[architecture]\nmacs={chip.macs_per_cycle}\ncores={chip.cores}\n"
    modes = f"[vela]\nsystem_config_name={chip.system_config}\nmemory_mode_name={chip.memory_mode}\n"
    return head + modes + ini.read_text()


def _options_text(chip: Chip, disable: tuple[str, ...]) -> str:
    arena = 1 << (40 if chip.family == "u85" else 32)  # the command line's defaults: the whole address space
    return (
        "\n[compiler]\nenable_db=true\noutput_format=TFLite\ncop_format=COP1\n"
        f"\n[scheduler]\noptimize=Performance\narena_size_limit={arena}\ndisable_feature={'|'.join(disable)}\n"
        "cpu_tensor_alignment=16\ntensor_allocator=HillClimb\n\n[graph]\nsoftmax_int16_neg_exp_range=10.0\n"
    )
