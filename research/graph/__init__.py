"""The one small graph: traced from any JAX function, fused, quantised, exported to TFLite and run."""

from research.graph.export import export
from research.graph.inspection import LayerFacts, inspect
from research.graph.interpret import interpret_float, observe, site_values
from research.graph.ir import Graph, Node, Tensor, check, parameter_count
from research.graph.rewrite import fold_norm, fuse
from research.graph.runtime import run_tflite
from research.graph.tflite import read_metadata
from research.graph.trace import trace

__all__ = [
    "Graph",
    "LayerFacts",
    "Node",
    "Tensor",
    "check",
    "export",
    "fold_norm",
    "fuse",
    "inspect",
    "interpret_float",
    "observe",
    "parameter_count",
    "read_metadata",
    "run_tflite",
    "site_values",
    "trace",
]
