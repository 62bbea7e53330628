"""What the links of a chain may know about the network they squeeze: its paths, groups, price and teacher."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from research import nets
from research.graph.ir import Graph
from research.graph.rewrite import fuse
from research.graph.trace import trace
from research.npu.chip import Chip
from research.npu.cost import cost
from research.npu.rounding import THROUGH, Rounding
from research.npu.table import LayerTable, layer_table
from research.pytrees import ChannelGroup, flatten
from research.spec import Named
from research.squeeze import Setting
from research.train.state import Program


@functools.lru_cache(maxsize=64)
def graph_of(net: Any) -> Graph:
    """The fused graph of a network spec as it will be shipped (norms folded, canonical formulation)."""
    graph, _ = fuse(trace(*nets.traced(net)))
    return graph


def priced_table(net: Any, links: Named) -> tuple[LayerTable, tuple[str | None, ...]]:
    """The layer table of a network with every link's price applied, and the kernel path of each row."""
    graph = graph_of(net)
    table, kernels = layer_table(graph), tuple(node.kernel for node in graph.nodes)
    for _, link in links.items:
        table = link.price(table, kernels)
    return table, kernels


def latency_of(
    net: Any, links: Named, chip: Chip, rounding: Rounding = THROUGH
) -> Callable[[Mapping[str, jax.Array]], jax.Array]:
    """`{group: width} -> ms` on a chip, differentiable in the widths; groups left out keep their size."""
    table, _ = priced_table(net, links)
    rows = {group.name: _rows(group, graph_of(net)) for group in net.groups()}

    def latency_ms(widths: Mapping[str, jax.Array]) -> jax.Array:
        ic, oc = table.ic, table.oc
        for name, width in widths.items():
            into, out_of = rows[name]
            ic = ic.at[jnp.asarray(into)].set(width)
            oc = oc.at[jnp.asarray(out_of)].set(width)
        return cost(table._replace(ic=ic, oc=oc), chip, rounding=rounding).ms

    return latency_ms


def _rows(group: ChannelGroup, graph: Graph) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows whose input and rows whose output channels are this group's; a depthwise row is both."""
    axes = dict(group.params)
    into, out_of = [], []
    for row, node in enumerate(graph.nodes):
        axis = axes.get(node.kernel) if node.kernel else None
        if axis == 2 or (axis == 3 and node.op == "depthwise"):
            into.append(row)
        if axis == 3:
            out_of.append(row)
    return tuple(into), tuple(out_of)


def setting_of(program: Program, links: Named) -> Setting:
    """The `Setting` of a program; `links` with their floats, traced or not."""
    params, _ = nets.shapes(program.net)
    teacher = program.teacher

    def teach(frozen: Any, images: jax.Array) -> tuple[jax.Array, Mapping[str, jax.Array]]:
        weights, compute = (frozen["params"], frozen["norm_stats"]), program.optim.compute
        out = nets.forward(teacher, *weights, images, formulation=program.formulation, compute=compute)
        return out.keypoints, out.taps

    return Setting(
        paths=tuple(flatten(params)),
        sites=program.net.sites(),
        groups=program.net.groups(),
        latency_ms=latency_of(program.net, links, program.chip),
        teacher=teach if teacher is not None else None,
    )
