"""How much SRAM a network needs at once, step after step; each tensor lives from its maker to its last reader.

After `LiveRangeGraph::ExtractLiveRangesFromCascades` of ethos-u-vela 5.2.0: a step has two halves, so that a slice of
weights fetched under the layer before lies beside that layer's tensors and not beside the weights it starts with.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

from research.graph.ir import BINARY, UNARY, Graph, Node
from research.npu.riding import RELAYOUT, copied_share, riders

_BRICK = 16

Bits = int | Mapping[str, int]


class WeightBuffer(NamedTuple):
    """Bytes of SRAM that the weights of one layer take: `ahead` while the layer before it runs, `held` in all when it
    starts, `last` while its last slice runs."""

    ahead: int
    held: int
    last: int


def tensor_bits(graph: Graph, row_bits: Sequence[float]) -> dict[str, int]:
    """{tensor: bits of an element}, from the bits at which each node runs, in the order of the nodes.

    A tensor has the width of those that read it. One that nobody reads has that of its maker; a `quantize` which
    makes it changes from 8 to 16 or back.
    """
    if len(row_bits) != len(graph.nodes):
        raise ValueError(f"{len(row_bits)} widths but {len(graph.nodes)} nodes")
    own = {node.output: round(b) for node, b in zip(graph.nodes, row_bits, strict=True)}
    changes = {node.output for node in graph.nodes if node.op == "quantize"}
    found = {name: 24 - bits if name in changes else bits for name, bits in own.items()}
    for node in graph.nodes:
        for name in node.inputs:
            found[name] = own[node.output]
    return found


def live_bytes(
    graph: Graph, *, bits: Bits = 8, buffers: Mapping[str, WeightBuffer] | None = None
) -> tuple[int, ...]:
    """Bytes that are alive while each node of the graph runs, in the order of the nodes.

    Between layers, tensors lie in bricks of 16 channels; graph inputs and outputs and both sides of a change of
    layout are plain. Constants lie in flash. A reshape, slice or folded pad makes no new tensor, concatenated
    and padded tensors are written in place, and an element-wise operation overwrites an input that nobody reads
    later.

    Args:
      bits: of an activation, of all or by tensor (see `tensor_bits`).
      buffers: of weights, by the tensor that the layer makes; none: activations alone.
    """
    alone = {tensor.name: _bytes(graph, tensor.name, bits) for tensor in graph.tensors}
    alias, size = _aliases(graph, alone), dict[str, int]()
    constants = {node.output for node in graph.nodes if node.op == "constant"}
    for name, own in alone.items():
        root = _root(name, alias)
        size[root] = max(size.get(root, 0), own)
    born: dict[str, int] = {_root(name, alias): 0 for name in graph.inputs}
    dies = dict(born)
    for step, node in enumerate(graph.nodes):
        for name in {*node.inputs, node.output} - constants:
            root = _root(name, alias)
            born.setdefault(root, step)
            dies[root] = step
    for name in set(graph.outputs) - constants:
        dies[_root(name, alias)] = len(graph.nodes) - 1
    live = [_scratch(graph, node, alone) for node in graph.nodes]
    for root, start in born.items():
        for step in range(start, dies[root] + 1):
            live[step] += size[root]
    held = _beside(graph, buffers) if buffers else [0] * len(live)
    return tuple(a + b for a, b in zip(live, held, strict=True))


def sram_peak_kb(graph: Graph, *, bits: Bits = 8, buffers: Mapping[str, WeightBuffer] | None = None) -> float:
    """Largest of `live_bytes` over the layers, KiB; arguments as there."""
    return max(live_bytes(graph, bits=bits, buffers=buffers), default=0) / 1024


def _beside(graph: Graph, buffers: Mapping[str, WeightBuffer]) -> list[int]:
    """Bytes of weight buffers at each node: the more of a step's halves. A rider shares the step of its layer."""
    riding = riders(graph)
    runs = [node.op != "constant" and node.output not in riding for node in graph.nodes]
    first, second = [0] * len(runs), [0] * len(runs)
    for step, node in enumerate(graph.nodes):
        buffer = buffers.get(node.output)
        if buffer is None:
            continue
        before = next((s for s in range(step - 1, -1, -1) if runs[s]), step)
        until = next((s for s in range(step + 1, len(runs)) if runs[s]), len(runs))
        for s in range(before, step):
            second[s] += buffer.ahead
        for s in range(step, until):
            first[s], second[s] = first[s] + buffer.held, second[s] + buffer.last
    return [max(pair) for pair in zip(first, second, strict=True)]


def _scratch(graph: Graph, node: Node, size: Mapping[str, int]) -> int:
    """Bytes an operation needs beside its operands. A softmax holds its exponentials in 32 bits, beside them either a
    copy or the sums of its rows three times in bricks; its input is read by then and its output is not yet made."""
    if node.op != "softmax":
        return 0
    *rows, channels = graph.shape(node.output)
    exponentials, sums = 4 * -(-channels // _BRICK) * _BRICK, 4 * _BRICK
    held = prod(rows) * (exponentials + max(4 * channels, 3 * sums) + 4)
    return max(held - size[node.inputs[0]] - size[node.output], 0)


def _aliases(graph: Graph, size: Mapping[str, int]) -> dict[str, str]:
    """{tensor: the tensor whose memory it shares}; `size` in bytes tells what fits in the other's place."""
    made = {node.output for node in graph.nodes if node.op != "constant"}
    riding, out = riders(graph), dict[str, str]()
    for node in graph.nodes:
        if node.op in ("reshape", "slice", "pad") and not copied_share(graph, node):
            out[node.output] = node.inputs[0]
        elif node.op == "concat":
            out.update({name: node.output for name in node.inputs if name in made})
        elif node.op in (*BINARY, *UNARY, "pad") and node.op not in ("prelu", "softmax"):
            own = [
                n
                for n in node.inputs
                if n in made and len(graph.consumers(n)) == 1 and n not in graph.outputs
            ]
            fits = [
                n for n in own if node.op == "pad" or node.output in riding or size[n] == size[node.output]
            ]
            if fits:
                out[fits[-1]] = node.output
    return out


def _root(name: str, alias: dict[str, str]) -> str:
    while name in alias:
        name = alias[name]
    return name


def _bytes(graph: Graph, name: str, bits: Bits) -> int:
    shape = graph.shape(name) or (1,)
    plain = name in graph.inputs or name in graph.outputs or len(shape) != 4
    plain = plain or any(node.op in RELAYOUT for node in graph.consumers(name))
    channels = shape[-1] if plain else -(-shape[-1] // _BRICK) * _BRICK
    wide = bits if isinstance(bits, int) else bits.get(name, 8)
    return prod(shape[:-1]) * channels * wide // 8
