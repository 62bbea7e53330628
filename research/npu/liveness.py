"""How much SRAM the activations of a network need at once; each lives from its maker to its last reader."""

from math import prod

from research.graph.ir import Graph, Node

_BRICK = 16


def sram_peak_kb(graph: Graph, *, bits: int = 8) -> float:
    """Largest sum of live activations over the layers, KiB; weight buffers are not in it.

    Between layers, tensors lie in bricks of 16 channels; graph inputs and outputs and both sides of a reshape
    are plain. A reshape makes no new tensor, concatenated tensors are written in place, and an add overwrites
    an input that nobody reads later.
    """
    alias = _aliases(graph)
    size: dict[str, int] = {}
    for tensor in graph.tensors:
        root = _root(tensor.name, alias)
        size[root] = max(size.get(root, 0), _bytes(graph, tensor.name, bits))
    born: dict[str, int] = {_root(name, alias): 0 for name in graph.inputs}
    dies = dict(born)
    for step, node in enumerate(graph.nodes):
        for name in (*node.inputs, node.output):
            root = _root(name, alias)
            born.setdefault(root, step)
            dies[root] = step
    for name in graph.outputs:
        dies[_root(name, alias)] = len(graph.nodes) - 1
    steps = range(len(graph.nodes))
    peak = max((sum(size[r] for r in born if born[r] <= s <= dies[r]) for s in steps), default=0)
    return peak / 1024


def _aliases(graph: Graph) -> dict[str, str]:
    """{tensor: the tensor whose memory it shares}."""
    last_reader = {name: step for step, node in enumerate(graph.nodes) for name in node.inputs}
    made = {node.output: step for step, node in enumerate(graph.nodes)}
    out: dict[str, str] = {}
    for step, node in enumerate(graph.nodes):
        if node.op == "reshape":
            out[node.output] = node.inputs[0]
        elif node.op == "concat":
            out.update({name: node.output for name in node.inputs if name in made})
        elif node.op == "add":
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
    plain = plain or any(node.op == "reshape" for node in graph.consumers(name))
    channels = shape[-1] if plain else -(-shape[-1] // _BRICK) * _BRICK
    return prod(shape[:-1]) * channels * bits // 8
