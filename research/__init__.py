"""The notebook's door: `from research import load, fit, price, table`, the same code as the command line."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from research.door import fit, load, price, table

# XLA for CPUs (jaxlib 0.10.2) computes reduce(relu(pad(x) + conv(x))) wrongly where YNNPACK may fuse a reduction;
# read when the first array is made. Tested in tests/test_door.py.
_FUSIONS = "xla_cpu_experimental_ynn_fusion_type"
if _FUSIONS not in (_flags := os.environ.get("XLA_FLAGS", "")):
    _sound = "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    os.environ["XLA_FLAGS"] = f"{_flags} --{_FUSIONS}={_sound}".strip()

__all__ = ["fit", "load", "price", "table"]


def __getattr__(name: str) -> Any:
    """The four functions of `research.door`, imported when first asked for, so that rooms load light."""
    if name in __all__:
        return getattr(importlib.import_module("research.door"), name)
    raise AttributeError(f"module 'research' has no attribute {name!r}")
