"""Squeezing as pure transforms: gates, sparsity, distillation, precision, and rewrites between stages."""

from research.squeeze.compact import close, compact
from research.squeeze.distill import Distill
from research.squeeze.fold import fold
from research.squeeze.gates import WidthGates, compaction
from research.squeeze.quant import FakeQuant
from research.squeeze.sparsity import NM, nm_mask
from research.squeeze.taught import Taught
from research.squeeze.transform import (
    IDENTITY,
    Context,
    Link,
    Rewrite,
    Setting,
    Transform,
    Variables,
    chain,
    check_order,
)

__all__ = [
    "IDENTITY",
    "NM",
    "Context",
    "Distill",
    "FakeQuant",
    "Link",
    "Rewrite",
    "Setting",
    "Taught",
    "Transform",
    "Variables",
    "WidthGates",
    "chain",
    "check_order",
    "close",
    "compact",
    "compaction",
    "fold",
    "nm_mask",
]
