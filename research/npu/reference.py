"""The frozen V1 as a graph: MobileNetV2 width 0.65 at 128 x 128 x 1, 49.0 MMACs, 843 k parameters.

Widths are rounded to multiples of 8 as in Sandler et al. 2018; every block expands (the first by 1); the neck
of 64 channels is flattened (4 x 4 x 64) into a dense layer of 42 outputs, 21 points in the image.
"""

from research.graph.ir import Activation, Graph, Node, Op, Tensor

_WIDTH, _SIZE_PX, _STEM, _NECK, _OUTPUTS = 0.65, 128, 32, 64, 42
_STAGES = (  # expansion, width, repeats, stride
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def v1_graph() -> Graph:
    """V1, fused (bias and ReLU6 inside the layers), with the names of the project's networks."""
    nodes: list[Node] = []
    shapes: dict[str, tuple[int, ...]] = {"image": (1, _SIZE_PX, _SIZE_PX, 1)}

    def unit(op: Op, source: str, name: str, width: int, kernel: int, stride: int, fused: Activation) -> str:
        _, rows, columns, channels = shapes[source]
        shape = (kernel, kernel, 1 if op == "depthwise" else channels, width)
        shapes[name] = (1, -(-rows // stride), -(-columns // stride), width)
        weights = (f"{name}/kernel", shape, f"{name}/bias")
        nodes.append(Node(op, (source,), name, *weights, fused, (stride, stride), "SAME"))
        return name

    x = unit("conv", "image", "stem", _rounded(_STEM), 3, 2, "relu6")
    for block, (expand, width, stride) in enumerate(_blocks()):
        inner = shapes[x][-1] * expand
        y = unit("conv", x, f"b{block}/expand", inner, 1, 1, "relu6")
        y = unit("depthwise", y, f"b{block}/depthwise", inner, 3, stride, "relu6")
        y = unit("conv", y, f"b{block}/project", width, 1, 1, "none")
        if shapes[y] == shapes[x]:
            shapes[f"b{block}/add"] = shapes[x]
            nodes.append(Node("add", (x, y), f"b{block}/add"))
            y = f"b{block}/add"
        x = y
    x = unit("conv", x, "neck", _NECK, 1, 1, "relu6")
    flat = shapes[x][1] * shapes[x][2] * _NECK
    shapes["flat"], shapes["head"] = (1, flat), (1, _OUTPUTS)
    nodes.append(Node("reshape", (x,), "flat"))
    nodes.append(Node("dense", ("flat",), "head", "head/kernel", (flat, _OUTPUTS), "head/bias"))
    return Graph(tuple(nodes), tuple(Tensor(n, s, True) for n, s in shapes.items()), ("image",), ("head",))


def _blocks() -> list[tuple[int, int, int]]:
    return [
        (expand, _rounded(width), stride if index == 0 else 1)
        for expand, width, repeats, stride in _STAGES
        for index in range(repeats)
    ]


def _rounded(width: int) -> int:
    """The nearest multiple of 8, never more than 10 % below."""
    scaled = width * _WIDTH
    near = max(8, int(scaled + 4) // 8 * 8)
    return near + 8 if near < 0.9 * scaled else near
