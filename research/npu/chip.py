"""The chips that are priced: one frozen record a chip, every number with its source.

Sources, by their short names below:
  arch85, arch55: `ethosu/regor/architecture/ethosu85/ethos_u85.cpp` (tables `s_EthosU85Configs`,
      `s_EthosU85PerfInfo`) and `.../ethosu55/ethos_u55.cpp` of Arm's ethos-u-vela 5.2.0 (Apache-2.0).
  ini: `config_files/Arm/vela.ini` of the same package, the system configuration named in `system_config`.
A bus word is 8 bytes on Ethos-U55 and 16 bytes on Ethos-U85 (arch), so a memory gives
`word * ports * clock scale` bytes a cycle.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Memory:
    """One memory as the NPU sees it. Source: ini."""

    bytes_per_cycle: float
    read_latency_cycles: float
    write_latency_cycles: float
    burst_bytes: float
    ports: int = 1
    reads_in_flight: int = 8  # requests that the memory takes before it answers the first
    writes_in_flight: int = 8


@dataclasses.dataclass(frozen=True)
class Chip:
    """Everything the price of a network on one chip needs; hashable, so it is a static argument of `jax.jit`.

    A microblock is the (rows, columns, channels) of output that the MAC array makes at once.
    `output_cycles` are cycles an element of the output stage for (8 bit, 16 bit) results.
    """

    name: str
    family: str  # "u85" or "u55": which formulas apply
    macs_per_cycle: int
    cores: int
    clock_mhz: float
    sparse_2_4: bool  # 2:4 weights run at twice the rate
    chains_adds: bool  # an add runs in the output stage of the layer before it
    microblocks: tuple[tuple[int, int, int], ...]  # of a convolution
    microblocks_depthwise: tuple[tuple[int, int, int], ...]  # of a depthwise layer or a pool
    block_limit: tuple[int, int, int]  # largest output block (rows, columns, channels)
    ram_splits: tuple[
        tuple[int, int], ...
    ]  # bytes of (input, accumulators) a block; two blocks are in flight
    output_cycles: tuple[float, float]
    add_cycles: tuple[float, float]  # the same, of an add that runs alone
    max_pool_cycles: tuple[float, float]
    energy_scale: float  # switching energy relative to V1's chip (1: the same process)
    scale_bytes: int  # bias, multiplier and shift of one output channel
    sram: Memory
    flash: Memory
    accelerator: str  # the referee's name of the chip
    system_config: str
    memory_mode: str

    @property
    def cycles_per_ms(self) -> float:
        """Clock cycles in a millisecond."""
        return self.clock_mhz * 1e3


# ini, [System_Config.Ethos_U85_SYS_Flash_Low]: SRAM 16 B x 2 ports x 1.0; flash 16 B x 1 port x 0.0625.
# The per-channel limits of EthosU85Performance::ChannelBW stay above these bandwidths for 8-bit layers.
_U85_SRAM = Memory(32.0, read_latency_cycles=8.0, write_latency_cycles=8.0, burst_bytes=64.0, ports=2)
_U85_FLASH = Memory(1.0, 32.0, 0.0, burst_bytes=128.0, reads_in_flight=2, writes_in_flight=1)

# ini, [System_Config.Ethos_U55_Deep_Embedded]: SRAM 8 B x 1.0; flash 8 B x 0.0625.
_U55_SRAM = Memory(8.0, read_latency_cycles=32.0, write_latency_cycles=32.0, burst_bytes=32.0)
_U55_FLASH = Memory(0.5, 64.0, 0.0, burst_bytes=128.0, reads_in_flight=2, writes_in_flight=1)

U85_128 = Chip(
    name="Ethos-U85-128",
    family="u85",
    macs_per_cycle=128,  # arch85
    cores=1,  # arch85
    clock_mhz=200.0,  # ini: core_clock
    sparse_2_4=True,  # arch85: SupportedWeightFormat
    chains_adds=True,  # arch85: EthosU85OpGroup
    microblocks=((1, 2, 8),),  # arch85: SetupOfmUBlockToOpTable, 8-bit convolution
    microblocks_depthwise=((1, 1, 16),),  # the same table, depthwise and pool
    block_limit=(128, 128, 1024),  # arch85: _ofmBlockMax
    ram_splits=((4096, 4096),),  # arch85: half of ifmRamSizeBytes and of accRamSizeBytes
    output_cycles=(0.5, 0.5),  # arch85: outputCycles[0], [1]
    add_cycles=(0.5, 0.5),
    max_pool_cycles=(0.5, 0.5),
    energy_scale=1.0,
    scale_bytes=10,  # EncodeBias32
    sram=_U85_SRAM,
    flash=_U85_FLASH,
    accelerator="ethos-u85-128",
    system_config="Ethos_U85_SYS_Flash_Low",
    memory_mode="Shared_Sram",
)

U85_256 = dataclasses.replace(
    U85_128,
    name="Ethos-U85-256",
    macs_per_cycle=256,  # this and all that follows: arch85
    microblocks=((1, 4, 8), (2, 2, 8)),
    microblocks_depthwise=((1, 2, 16),),
    ram_splits=((8192, 8192),),
    output_cycles=(0.25, 0.25),
    add_cycles=(0.25, 0.25),
    max_pool_cycles=(0.25, 0.25),
    accelerator="ethos-u85-256",
)

U85_512 = dataclasses.replace(
    U85_128,
    name="Ethos-U85-512",
    macs_per_cycle=512,
    cores=2,
    microblocks=((2, 2, 16), (1, 4, 16)),
    microblocks_depthwise=((2, 2, 16), (1, 4, 16)),
    ram_splits=((8192, 16384),),
    output_cycles=(0.125, 0.125),
    add_cycles=(0.125, 0.125),
    max_pool_cycles=(0.125, 0.125),
    accelerator="ethos-u85-512",
)

U55_128 = Chip(
    name="Ethos-U55-128",
    family="u55",
    macs_per_cycle=128,  # arch55
    cores=1,
    clock_mhz=200.0,  # ini: core_clock
    sparse_2_4=False,  # arch55: SupportedWeightFormat is Default only
    chains_adds=False,  # arch55: EthosU55OpGroup fuses activations only
    microblocks=((1, 2, 8),),  # arch55: ofmUBlock
    microblocks_depthwise=((1, 2, 8),),
    block_limit=(32, 64, 128),  # arch55: _ofmBlockMax
    # arch55: of 24 banks of 1 KiB, 2 are for output, 2 at the end; accumulators take eights, input fours
    ram_splits=((6144, 4096), (2048, 8192)),
    output_cycles=(0.5, 0.75),  # arch55: outputCycles[7] and [3] (40-bit accumulators)
    add_cycles=(1.5, 1.5),  # arch55: outputCycles[5]
    max_pool_cycles=(0.25, 0.25),  # arch55: outputCycles[6]
    energy_scale=1.0,
    scale_bytes=10,
    sram=_U55_SRAM,
    flash=_U55_FLASH,
    accelerator="ethos-u55-128",
    system_config="Ethos_U55_Deep_Embedded",
    memory_mode="Shared_Sram",
)

U55_256 = dataclasses.replace(
    U55_128,
    name="Ethos-U55-256",
    macs_per_cycle=256,  # this and all that follows: arch55
    microblocks=((2, 2, 8),),
    microblocks_depthwise=((2, 2, 8),),
    # of 48 banks of 1 KiB, 2 are for output, 2 at the end; accumulators take sixteens, input eights
    ram_splits=((12288, 8192), (4096, 16384)),
    output_cycles=(0.25, 0.375),
    add_cycles=(0.75, 0.75),
    max_pool_cycles=(0.125, 0.125),
    accelerator="ethos-u55-256",
)
