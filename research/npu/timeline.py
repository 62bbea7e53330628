"""What lies in SRAM while a network runs, layer after layer: the picture behind `sram_peak_kb`."""

from collections.abc import Mapping

from research.graph.ir import Graph
from research.npu.liveness import Bits, WeightBuffer, live_bytes


def live_kb(
    graph: Graph, *, bits: Bits = 8, buffers: Mapping[str, WeightBuffer] | None = None
) -> tuple[float, ...]:
    """KiB that are alive while each node of the graph runs, in the order of the nodes; as `live_bytes`."""
    return tuple(size / 1024 for size in live_bytes(graph, bits=bits, buffers=buffers))
