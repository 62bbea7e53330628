"""The NPU: chips, the price of a network on them (jitted, differentiable), its energy, and the referee."""

from research.npu.calibrate import Calibration, ExtrapolationWarning, calibrate, outside, predict_ms
from research.npu.chip import U55_128, U55_256, U85_128, U85_256, U85_512, Chip, Memory
from research.npu.choices import Choices
from research.npu.cost import Cost, cost
from research.npu.energy import energy_mj
from research.npu.liveness import sram_peak_kb
from research.npu.measured import Measured, networks_of, read_measured
from research.npu.named import find_chip, known_chips
from research.npu.network import Network, read_network
from research.npu.price import Price, price
from research.npu.referee import referee, referee_foreign
from research.npu.reference import v1_graph
from research.npu.rounding import EXACT, SMOOTH, THROUGH, Rounding
from research.npu.systolic import SYSTOLIC_OS, SYSTOLIC_WS, Systolic, systolic_cost
from research.npu.table import LayerTable, layer_names, layer_table, pad
from research.npu.verdict import LayerVerdict, Verdict, sparse_reason
from research.npu.weights import bad_groups, encoded_bytes_per_weight, is_2_4, with_kernels

__all__ = [
    "EXACT",
    "SMOOTH",
    "SYSTOLIC_OS",
    "SYSTOLIC_WS",
    "THROUGH",
    "U55_128",
    "U55_256",
    "U85_128",
    "U85_256",
    "U85_512",
    "Calibration",
    "Chip",
    "Choices",
    "Cost",
    "ExtrapolationWarning",
    "LayerTable",
    "LayerVerdict",
    "Measured",
    "Memory",
    "Network",
    "Price",
    "Rounding",
    "Systolic",
    "Verdict",
    "bad_groups",
    "calibrate",
    "cost",
    "encoded_bytes_per_weight",
    "energy_mj",
    "find_chip",
    "is_2_4",
    "known_chips",
    "layer_names",
    "layer_table",
    "networks_of",
    "outside",
    "pad",
    "predict_ms",
    "price",
    "read_measured",
    "read_network",
    "referee",
    "referee_foreign",
    "sparse_reason",
    "sram_peak_kb",
    "systolic_cost",
    "v1_graph",
    "with_kernels",
]
