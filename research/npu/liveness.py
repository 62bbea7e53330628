"""How much SRAM the activations of a network need at once; each lives from its maker to its last reader."""

from math import prod

from research.graph.ir import BINARY, UNARY, Graph, Node
from research.npu.riding import RELAYOUT, copied_share

_BRICK = 16


def sram_peak_kb(graph: Graph, *, bits: int = 8) -> float:
    """Largest sum of live activations over the layers, KiB; weight buffers are not in it.

    Between layers, tensors lie in bricks of 16 channels; graph inputs and outputs and both sides of a change of
    layout are plain. Constants lie in flash. A reshape, slice or folded pad makes no new tensor, concatenated
    and padded tensors are written in place, and an element-wise operation overwrites an input that nobody reads
    later.
    """
    alias = _aliases(graph)
    size: dict[str, int] = {}
    constants = {node.output for node in graph.nodes if node.op == "constant"}
    for tensor in graph.tensors:
        root = _root(tensor.name, alias)
        size[root] = max(size.get(root, 0), _bytes(graph, tensor.name, bits))
    born: dict[str, int] = {_root(name, alias): 0 for name in graph.inputs}
    dies = dict(born)
    for step, node in enumerate(graph.nodes):
        for name in {*node.inputs, node.output} - constants:
            root = _root(name, alias)
            born.setdefault(root, step)
            dies[root] = step
    for name in set(graph.outputs) - constants:
        dies[_root(name, alias)] = len(graph.nodes) - 1
    steps = range(len(graph.nodes))
    live = [sum(size[r] for r in born if born[r] <= s <= dies[r]) for s in steps]
    return (
        max((n + _scratch(graph, node) for n, node in zip(live, graph.nodes, strict=True)), default=0) / 1024
    )


def _scratch(graph: Graph, node: Node) -> int:
    """Bytes an operation needs beside its operands: a softmax holds its exponentials twice, in 32 bits."""
    return 8 * prod(graph.shape(node.output)) if node.op == "softmax" else 0


def _aliases(graph: Graph) -> dict[str, str]:
    """{tensor: the tensor whose memory it shares}."""
    last_reader = {name: step for step, node in enumerate(graph.nodes) for name in node.inputs}
    made = {node.output: step for step, node in enumerate(graph.nodes) if node.op != "constant"}
    out: dict[str, str] = {}
    for step, node in enumerate(graph.nodes):
        if node.op in ("reshape", "slice", "pad") and not copied_share(graph, node):
            out[node.output] = node.inputs[0]
        elif node.op == "concat":
            out.update({name: node.output for name in node.inputs if name in made})
        elif node.op in (*BINARY, *UNARY, "pad") and node.op not in ("prelu", "softmax"):
            latest = _overwritten(node, step, made, last_reader)
            if latest is not None:
                out[latest] = node.output
    return out


def _overwritten(node: Node, step: int, made: dict[str, int], last_reader: dict[str, int]) -> str | None:
    done = [name for name in node.inputs if name in made and last_reader[name] == step]
    return max(done, key=made.__getitem__) if done else None


def _root(name: str, alias: dict[str, str]) -> str:
    while name in alias:
        name = alias[name]
    return name


def _bytes(graph: Graph, name: str, bits: int) -> int:
    shape = graph.shape(name)
    plain = name in graph.inputs or name in graph.outputs or len(shape) != 4
    plain = plain or any(node.op in RELAYOUT for node in graph.consumers(name))
    channels = shape[-1] if plain else -(-shape[-1] // _BRICK) * _BRICK
    return prod(shape[:-1]) * channels * bits // 8
