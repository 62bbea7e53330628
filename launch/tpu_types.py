"""What a TPU topology such as `v5e:4x4` is called by Google Cloud, and how many chips and hosts it has.

Names as of 2025 in Google's documentation of TPU VMs and of TPUs in GKE; none has been asked for by this project.
"""

import math
from dataclasses import dataclass

FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
DEEP = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")


@dataclass(frozen=True)
class Generation:
    """One kind of chip: its topologies and its names in the TPU API and in GKE."""

    topologies: tuple[str, ...]
    accelerator: str  # accelerator type, up to its number
    per_chip: int  # what that number counts: 1 a chip, or 2 (TensorCores)
    runtime: str  # the TPU VM image
    gke: str  # value of the node label cloud.google.com/gke-tpu-accelerator
    largest_host: int  # chips of the largest single host


GENERATIONS = {
    "v4": Generation(DEEP, "v4-", 2, "tpu-ubuntu2204-base", "tpu-v4-podslice", 4),
    "v5e": Generation(FLAT, "v5litepod-", 1, "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice", 8),
    "v5p": Generation(DEEP, "v5p-", 2, "v2-alpha-tpuv5", "tpu-v5p-slice", 4),
    "v6e": Generation(FLAT, "v6e-", 1, "v2-alpha-tpuv6e", "tpu-v6e-slice", 8),
}


@dataclass(frozen=True)
class Slice:
    """Chips that are wired together: `v5e:4x4` is 16 chips on 4 hosts."""

    generation: str
    topology: str

    @property
    def chips(self) -> int:
        """All its chips."""
        return math.prod(map(int, self.topology.split("x")))

    @property
    def hosts(self) -> int:
        """One up to the largest host; larger slices are made of hosts with 4 chips."""
        return 1 if self.chips <= GENERATIONS[self.generation].largest_host else self.chips // 4

    @property
    def chips_per_host(self) -> int:
        """What each host sees."""
        return self.chips // self.hosts

    @property
    def accelerator_type(self) -> str:
        """The TPU API's name, such as v5litepod-16 (16 chips) or v4-16 (8 chips, 16 cores)."""
        generation = GENERATIONS[self.generation]
        return f"{generation.accelerator}{self.chips * generation.per_chip}"

    @property
    def runtime(self) -> str:
        """The TPU VM image that Google names for this generation."""
        return GENERATIONS[self.generation].runtime

    @property
    def gke_accelerator(self) -> str:
        """The GKE node label of this generation."""
        return GENERATIONS[self.generation].gke


def parse_slice(text: str) -> Slice:
    """`v5e:4x4` as a Slice. Raises ValueError, in one line, for anything that is not offered."""
    name, _, topology = text.partition(":")
    if name not in GENERATIONS:
        raise ValueError(
            f"--topology {text}: the generation is one of {', '.join(GENERATIONS)}, as in v5e:4x4"
        )
    offered = GENERATIONS[name].topologies
    if topology not in offered:
        raise ValueError(f"--topology {text}: {name} comes as {', '.join(offered)}")
    return Slice(name, topology)
