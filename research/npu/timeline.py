"""What lies in SRAM while a network runs, layer after layer: the picture behind `sram_peak_kb`.

A plainer reading than `liveness`: every tensor between layers lies in bricks of 16 channels from its maker to its last
reader; a reshape shares its input's memory, an element-wise operation overwrites an operand nobody reads later.
Concatenated and padded tensors are counted beside their parts, so it is not below the real need there.
"""

from math import prod

from research.graph.ir import BINARY, UNARY, Graph

_BRICK = 16


def live_kb(graph: Graph, *, bits: int = 8) -> tuple[float, ...]:
    """KiB of activations that are alive while each node of the graph runs, in the order of the nodes."""
    ends = {*graph.inputs, *graph.outputs}
    constants = {node.output for node in graph.nodes if node.op == "constant"}
    last = {name: step for step, node in enumerate(graph.nodes) for name in node.inputs}
    last |= dict.fromkeys(graph.outputs, len(graph.nodes))

    def size(name: str) -> int:
        shape = graph.shape(name)
        plain = name in ends or len(shape) != 4
        channels = shape[-1] if plain else -(-shape[-1] // _BRICK) * _BRICK
        return prod(shape[:-1]) * channels * bits // 8

    alive = {name: size(name) for name in graph.inputs}
    found = []
    for step, node in enumerate(graph.nodes):
        done = [name for name in dict.fromkeys(node.inputs) if last[name] <= step and name in alive]
        in_place = node.op == "reshape" or (
            node.op in (*BINARY, *UNARY) and node.op not in ("prelu", "softmax")
        )
        reused = max((alive[name] for name in done), default=0) if in_place else 0
        new = 0 if node.output in constants else size(node.output)
        found.append((sum(alive.values()) - reused + max(new, reused)) / 1024)
        for name in done:
            del alive[name]
        if node.output not in constants:
            alive[node.output] = new
    return tuple(found)
