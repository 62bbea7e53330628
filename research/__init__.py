"""The notebook's door: `from research import load, fit, price, table`, the same code as the command line."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from research.door import fit, load, price, table

__all__ = ["fit", "load", "price", "table"]


def __getattr__(name: str) -> Any:
    """The four functions of `research.door`, imported when first asked for, so that rooms load light."""
    if name in __all__:
        return getattr(importlib.import_module("research.door"), name)
    raise AttributeError(f"module 'research' has no attribute {name!r}")
