"""The NPU: chips, the price of a network on them (jitted, differentiable), its energy, and the referee."""

from research.npu.chip import U55_128, U85_128, U85_512, Chip, Memory
from research.npu.cost import Cost, cost
from research.npu.energy import energy_mj
from research.npu.liveness import sram_peak_kb
from research.npu.referee import referee, referee_foreign
from research.npu.reference import v1_graph
from research.npu.table import LayerTable, layer_names, layer_table, pad, ungrouped
from research.npu.verdict import LayerVerdict, Verdict, sparse_reason
from research.npu.weights import bad_groups, encoded_bytes_per_weight, is_2_4, with_kernels

__all__ = [
    "U55_128",
    "U85_128",
    "U85_512",
    "Chip",
    "Cost",
    "LayerTable",
    "LayerVerdict",
    "Memory",
    "Verdict",
    "bad_groups",
    "cost",
    "encoded_bytes_per_weight",
    "energy_mj",
    "is_2_4",
    "layer_names",
    "layer_table",
    "pad",
    "referee",
    "referee_foreign",
    "sparse_reason",
    "sram_peak_kb",
    "ungrouped",
    "v1_graph",
    "with_kernels",
]
