"""Networks: frozen specs outside, Linen inside. The only door to flax.linen."""

from research.nets.apply import Forward, forward, init, shapes, traced
from research.nets.handnet import Block, HandNet, hand_net
from research.nets.heads import KEYPOINTS, Head, axes, decode
from research.nets.layers import NORM_EPSILON

__all__ = [
    "KEYPOINTS",
    "NORM_EPSILON",
    "Block",
    "Forward",
    "HandNet",
    "Head",
    "axes",
    "decode",
    "forward",
    "hand_net",
    "init",
    "shapes",
    "traced",
]
