"""Folding every batch norm into the kernel before it: the rewrite that makes a trained network shippable."""

from __future__ import annotations

from typing import Any

from research.graph.rewrite import fold_norm
from research.pytrees import flatten, unflatten
from research.squeeze.transform import Rewrite, Variables


def fold(epsilon: float) -> Rewrite:
    """Rewrite of a spec with `.folded()`: `x/norm/*` disappears, `x/kernel` is scaled, `x/bias` is new.

    `epsilon` is the norm's. Output-equal to 1e-5 in inference mode. Raises ValueError on a network that
    carries no norm (folded twice).
    """

    def rewrite(spec: Any, variables: Variables, data: Any = None) -> tuple[Any, Variables, dict[str, Any]]:
        flat, stats = flatten(variables.params), flatten(variables.norm_stats)
        units = [path.removesuffix("/norm/scale") for path in flat if path.endswith("/norm/scale")]
        if not units:
            raise ValueError("nothing to fold: this network has no batch norm (has it been folded before?)")
        for unit in units:
            flat[f"{unit}/kernel"], flat[f"{unit}/bias"] = fold_norm(
                flat[f"{unit}/kernel"],
                flat.pop(f"{unit}/norm/scale"),
                flat.pop(f"{unit}/norm/bias"),
                stats[f"{unit}/norm/mean"],
                stats[f"{unit}/norm/var"],
                epsilon,
            )
        return spec.folded(), Variables(unflatten(flat), {}), {"folded": len(units)}

    return rewrite
