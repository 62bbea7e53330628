"""The one small graph: traced or read, fused with proofs, run in exact integers, written to TFLite and StableHLO."""

from research.graph.calibrate import calibrate
from research.graph.exact import compile_exact
from research.graph.export import export, export_float
from research.graph.inspection import LayerFacts, inspect
from research.graph.integer import quantise
from research.graph.interpret import interpret_float, observe, site_values
from research.graph.ir import Graph, Node, Tensor, check, parameter_count
from research.graph.program import Affine, IntegerWeights, Program
from research.graph.read import read
from research.graph.rewrite import fold_norm, fuse, optimise
from research.graph.runtime import run_raw, run_tflite, time_tflite
from research.graph.stablehlo import export_stablehlo, load_stablehlo
from research.graph.tflite import read_metadata
from research.graph.trace import trace
from research.graph.write import write

__all__ = [
    "Affine",
    "Graph",
    "IntegerWeights",
    "LayerFacts",
    "Node",
    "Program",
    "Tensor",
    "calibrate",
    "check",
    "compile_exact",
    "export",
    "export_float",
    "export_stablehlo",
    "fold_norm",
    "fuse",
    "inspect",
    "interpret_float",
    "load_stablehlo",
    "observe",
    "optimise",
    "parameter_count",
    "quantise",
    "read",
    "read_metadata",
    "run_raw",
    "run_tflite",
    "site_values",
    "time_tflite",
    "trace",
    "write",
]
