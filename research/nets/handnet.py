"""The hand network as data: a MobileNetV2-like regressor of 21 keypoints, its groups, its rewrites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from research.nets.heads import Head, outputs
from research.pytrees import ChannelGroup, nearest


@dataclass(frozen=True)
class Block:
    """Inverted residual (Sandler et al. 2018): 1x1 to `mid`, depthwise `kernel` / `stride`, 1x1 to `out`.

    `fused`: one full `kernel` / `stride` convolution to `mid` stands for the first two (EfficientNetV2, Tan & Le 2021):
    more MACs, fewer bytes moved, faster to train on a CPU.
    """

    mid: int
    out: int
    kernel: int = 3
    stride: int = 1
    fused: bool = False

    def units(self) -> tuple[str, ...]:
        """Names of the units that make the `mid` channels."""
        return ("expand",) if self.fused else ("expand", "depthwise")


@dataclass(frozen=True)
class HandNet:
    """Grey crop `[N,size_px,size_px,1]` in 0..1 -> keypoints `[N,21,2]` in 0..1.

    `stem` channels of the 3x3 / 2 stem, `neck` channels before the head; `norm=False` is the
    folded network whose units carry a bias instead of a batch norm. `head` says what the last layer puts out.
    """

    size_px: int
    stem: int
    blocks: tuple[Block, ...]
    neck: int
    norm: bool = True
    head: Head = field(default_factory=Head)

    def __post_init__(self) -> None:
        outputs(self.head, self.plane())

    def plane(self) -> int:
        """Side of the last plane, in places."""
        side = -(-self.size_px // 2)
        for block in self.blocks:
            side = -(-side // block.stride)
        return side

    def groups(self) -> tuple[ChannelGroup, ...]:
        """The removable channels: the expanded width of every block, gated at the norm before the last 1x1."""
        return tuple(_block_group(f"b{i}", block, self.norm) for i, block in enumerate(self.blocks))

    def sites(self) -> tuple[str, ...]:
        """Names of the tensors that become integers, in order of computation."""
        names, width = ["image", "stem"], self.stem
        for i, block in enumerate(self.blocks):
            names += [f"b{i}/{unit}" for unit in (*block.units(), "project")]
            names += [f"b{i}/add"] if block.stride == 1 and block.out == width else []
            width = block.out
        before = ["flat"] if self.head.kind != "heatmap" else []
        return (*names, "neck", *before, *(["hidden"] if self.head.hidden else []), "head")

    def resized(self, widths: Mapping[str, int]) -> HandNet:
        """The same network with the named groups resized. ValueError: an unknown group, a width below 1."""
        known = {f"b{i}": i for i in range(len(self.blocks))}
        blocks = list(self.blocks)
        for name, width in widths.items():
            if name not in known:
                raise ValueError(f"no channel group {name!r}; {nearest(name, known)}")
            if width < 1:
                raise ValueError(f"group {name!r} cannot have {width} channels; keep at least one")
            blocks[known[name]] = replace(blocks[known[name]], mid=int(width))
        return replace(self, blocks=tuple(blocks))

    def folded(self) -> HandNet:
        """The network after every batch norm has been folded into the kernel before it."""
        return replace(self, norm=False)

    def smoke(self) -> HandNet:
        """The one tiny shape every config shares in smoke tests."""
        blocks = (Block(16, 8, stride=2), Block(16, 8), Block(16, 16, stride=2))
        return replace(self, size_px=32, stem=8, blocks=blocks, neck=8, head=self.head.smoke())


def hand_net(size_px: int, stem: int, neck: int, *blocks: tuple[int, int, int]) -> HandNet:
    """A network of 3x3 blocks `(mid, out, stride)` with a head of coordinates."""
    return HandNet(size_px, stem, tuple(Block(mid, out, 3, stride) for mid, out, stride in blocks), neck)


def _block_group(name: str, block: Block, norm: bool) -> ChannelGroup:
    vectors = ("norm/scale", "norm/bias") if norm else ("bias",)
    units = tuple(f"{name}/{unit}" for unit in block.units())
    return ChannelGroup(
        name=name,
        size=block.mid,
        params=tuple((f"{u}/kernel", 3) for u in units)
        + tuple((f"{u}/{v}", 0) for u in units for v in vectors)
        + ((f"{name}/project/kernel", 2),),
        norm_stats=tuple((f"{u}/norm/{v}", 0) for u in units for v in ("mean", "var")) if norm else (),
        gated=tuple(f"{units[-1]}/{v}" for v in vectors) if norm else (),
    )
