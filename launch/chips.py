"""TPU chips and slices by name: what one chip holds and does, and a mesh of chips that are not here to compile for."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from research.pytrees import nearest


@dataclass(frozen=True)
class TpuChip:
    """One chip as its maker documents it: `hbm_bytes`, `hbm_bytes_s`, `flops` a second in bfloat16.

    `clock_hz` turns the compiler's cycles into seconds; None where the documents do not settle it.
    """

    name: str
    hbm_bytes: float
    hbm_bytes_s: float
    flops: float
    clock_hz: float | None
    source: str


# The clock of v5e follows from its documented peak: 197e12 / (4 MXUs x 128 x 128 cells x 2 operations) = 1.5 GHz. The
# same sum for v6e (2 MXUs of 256 x 256) gives 3.5 GHz, which is no clock, so v6e has the roofline estimate alone.
CHIPS = {
    chip.name: chip
    for chip in (
        TpuChip("v5e", 16e9, 819e9, 197e12, 1.5e9, "https://cloud.google.com/tpu/docs/v5e (read 2026-11)"),
        TpuChip("v6e", 32e9, 1638e9, 918e12, None, "https://cloud.google.com/tpu/docs/v6e (read 2026-11)"),
    )
}


def chip_of(topology: str) -> TpuChip:
    """The chip of a topology such as "v5e:4x4". ValueError for another form or an unknown chip."""
    if not re.fullmatch(r"\w+:\d+(x\d+)+", topology):
        raise ValueError(f"topology {topology!r} is not of the form v5e:4x4")
    name = topology.partition(":")[0]
    if name not in CHIPS:
        raise ValueError(f"no TPU chip {name!r}; {nearest(name, CHIPS)}")
    return CHIPS[name]


def tpu_mesh(topology: str) -> Mesh:
    """A one-axis mesh "data" over the chips of a topology, for compiling only.

    ValueError for a topology that does not exist, ModuleNotFoundError without the TPU compiler.
    """
    chip_of(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise ModuleNotFoundError(
            "no TPU compiler here: install the extra tpu-aot (pip install '.[tpu-aot]')"
        )
    os.environ.update(QUIET | {name: os.environ[name] for name in QUIET if name in os.environ})
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"the TPU compiler knows no topology {topology!r}: {error}") from None
    return Mesh(np.asarray(found.devices), ("data",))


# What keeps the compiler from asking the cloud what machine this is, from taking a lock that only a TPU needs, and from
# writing logs.
QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_LOG_DIR": "disabled",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
