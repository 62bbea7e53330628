"""Which operations of a graph need no pass of their own: they run inside another one, or move nothing.

After `EthosU85OpGroup::Fuse` and `Chain`, `EthosU55OpGroup` and the memory copies that ethos-u-vela 5.2.0 puts
around concatenations, reshapes and pads.
"""

from collections import Counter
from math import prod

from research.graph.ir import Graph, Node, Op

RELAYOUT: tuple[Op, ...] = ("reshape", "slice", "transpose", "depth_to_space", "sqrt")  # both sides are NHWC
_CHAINED: tuple[Op, ...] = ("add", "sub", "neg", "mul", "maximum", "minimum", "abs")
_LOOKUPS: tuple[Op, ...] = ("logistic", "tanh", "hard_swish", "leaky_relu", "exp", "rsqrt")
_ACTIVATIONS: tuple[Op, ...] = (*_LOOKUPS, "clamp", "transpose")
_PASSES: tuple[Op, ...] = ("conv", "depthwise", "dense", "max_pool", "avg_pool", "quantize")
_BASES: tuple[Op, ...] = (*_PASSES, *_LOOKUPS)  # of a chain
_HOSTS: tuple[Op, ...] = (*_PASSES, *_CHAINED, "transpose_conv", "mean", "matmul")  # of an activation
_VIEWS: tuple[Op, ...] = ("constant", "reshape", "slice")
_MOST_PASSES, _MOST_INPUTS = 3, 3


def riders(graph: Graph) -> dict[str, str]:
    """{operation: the layer it can ride on}, by the tensors they make: an element-wise operation on the last layer
    that feeds it, an activation on any layer, each only where nobody else reads what comes between.

    A change of number format is a pass of its own: it rescales. Element-wise operations ride on Ethos-U85 only; at
    most 3 on one layer, which then reads at most 3 tensors.
    """
    makers = {node.output: node for node in graph.nodes if node.op != "constant"}
    order = {name: index for index, name in enumerate(makers)}
    uses = Counter(name for node in graph.nodes for name in node.inputs) + Counter(graph.outputs)
    numbers = {n.output for n in graph.nodes if n.op == "constant" and prod(n.kernel_shape) == 1}
    root, passes, reads = dict[str, str](), Counter[str](), Counter[str]()
    for node in graph.nodes:
        made = [name for name in node.inputs if name in makers]
        if not made or uses[last := max(made, key=order.__getitem__)] != 1:
            continue
        base, same_shape = root.get(last, last), graph.shape(last) == graph.shape(node.output)
        if node.op in _CHAINED and makers[base].op in _BASES and same_shape:
            outside = sum(name not in numbers for name in node.inputs) - 1
            if passes[base] < _MOST_PASSES and reads[base] + outside < _MOST_INPUTS:
                root[node.output] = base
                passes[base], reads[base] = passes[base] + 1, reads[base] + outside
        elif node.op in _ACTIVATIONS and makers[last].op in _HOSTS and makers[last].activation == "none":
            root[node.output] = base
    return root


def copied_share(graph: Graph, node: Node) -> float:
    """Elements that a concat, reshape or slice copies, of those it makes; 1 for every other operation.

    A part of a concat is written in place by the layer that makes it, unless somebody else reads it too. A
    reshape copies what is read elsewhere, a slice only what leaves the graph; a pad is part of the convolutions
    that read it, else its border is written (the inside too where it is not made for it): its share is weighted.
    """
    makers = {other.output: other.op for other in graph.nodes}
    whole, source = prod(graph.shape(node.output)), node.inputs[0] if node.inputs else ""

    def shared(name: str) -> bool:
        return len(graph.consumers(name)) > 1 or name in graph.outputs or name in graph.inputs

    leaves, readers = node.output in graph.outputs, graph.consumers(node.output)
    match node.op:
        case "concat":
            moved = [i for i in node.inputs if leaves or shared(i) or makers[i] in _VIEWS]
            return sum(prod(graph.shape(i)) for i in moved) / whole
        case "reshape":
            return float(len(graph.consumers(source)) > 1 or (leaves and source in graph.inputs))
        case "slice":
            return float(leaves)
        case "pad":
            folds = [n.op in ("conv", "depthwise") and n.padding == "VALID" for n in readers]
            if folds and all(folds) and node.spans[0] == node.spans[-1] == (0, 0):
                return 0.0
            inside, channels = prod(graph.shape(source)) / whole, sum(node.spans[-1])
            fill = 1.0 if not channels else 0.5 if channels >= 16 else 3.0  # short bursts are slow
            return fill * (1 - inside) + inside * shared(source) / 4  # to copy costs a quarter of to fill
    return 1.0
