"""Random hand networks of the space the search will walk: inverted residuals, plain convolutions, bottlenecks,
attention, squeeze-excite, skips by add and by concat, pools and upsampling, four activations, unfolded norms.

Weights are random, so that every integer is exercised; what a network is good for does not matter here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

BLOCKS = ("inverted", "plain", "bottleneck", "attention", "excite", "dense_skip", "pool", "upsample")
ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu, "relu6": jax.nn.relu6, "hard_swish": jax.nn.hard_swish, "silu": jax.nn.silu,
}  # fmt: skip
EPSILON = 1e-3


class Network(NamedTuple):
    """`fn(params, image [1, S, S, C]) -> [1, 42]`, its float parameters, and what it is made of."""

    fn: Callable[[Any, jax.Array], jax.Array]
    params: dict[str, Any]
    shape: tuple[int, int, int, int]
    blocks: tuple[str, ...]
    activation: str


class _Layers:
    """Makes parameters while the network is first run (`params` empty), reads them afterwards."""

    def __init__(self, params: dict[str, Any], rng: np.random.Generator | None) -> None:
        self.params, self.rng, self.count = params, rng, 0

    def unit(self, x: jax.Array, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> jax.Array:
        """SAME convolution and an unfolded batch norm."""
        shape = (kernel, kernel, x.shape[3] // groups, out)
        p = self._layer({"kernel": (shape, 1.6 / np.sqrt(np.prod(shape[:3])))}, norm=out)
        y = lax.conv_general_dilated(
            x, p["kernel"], (stride, stride), "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
        )  # fmt: skip
        rows = {k: jnp.reshape(v, (1, 1, 1, -1)) for k, v in p.items() if k != "kernel"}
        return (y - rows["mean"]) * (lax.rsqrt(rows["var"] + EPSILON) * rows["scale"]) + rows["shift"]

    def dense(self, x: jax.Array, out: int) -> jax.Array:
        """x [..., in] @ kernel + bias."""
        size = x.shape[-1]
        p = self._layer({"kernel": ((size, out), 1 / np.sqrt(size)), "bias": ((out,), 0.1)})
        return x @ p["kernel"] + p["bias"].reshape((1,) * (x.ndim - 1) + (-1,))

    def _layer(self, shapes: dict[str, tuple[tuple[int, ...], float]], norm: int = 0) -> dict[str, Any]:
        name = f"layer{self.count}"
        self.count += 1
        if self.rng is not None:
            made = {k: self.rng.normal(0, std, shape) for k, (shape, std) in shapes.items()}
            if norm:
                made["mean"], made["shift"] = self.rng.normal(0, 0.3, (2, norm))
                made["var"], made["scale"] = self.rng.uniform(0.5, 1.5, (2, norm))
            self.params[name] = {k: v.astype(np.float32) for k, v in made.items()}
        return dict(self.params[name])


def _attention(layers: _Layers, x: jax.Array) -> jax.Array:
    """Self-attention over the positions of a small image, one head, with its skip."""
    n, h, w, c = x.shape
    y = x.reshape(n, h * w, c)
    query, key, value = (layers.dense(y, c) for _ in range(3))
    weights = jax.nn.softmax(query @ key.transpose(0, 2, 1) * (c**-0.5), -1)
    return x + layers.dense(weights @ value, c).reshape(n, h, w, c)


def _block(kind: str, layers: _Layers, x: jax.Array, act: Any, kernel: int, stride: int) -> jax.Array:
    c = x.shape[3]
    if kind == "inverted":
        y = act(layers.unit(x, 2 * c))
        y = layers.unit(act(layers.unit(y, 2 * c, kernel, stride, 2 * c)), c)
        return x + y if stride == 1 else y
    if kind == "plain":
        return act(layers.unit(x, c + 4, min(kernel, 3), stride))
    if kind == "bottleneck":
        y = act(layers.unit(act(layers.unit(x, max(c // 2, 4))), max(c // 2, 4), kernel))
        return act(x + layers.unit(y, c))
    if kind == "attention":
        return _attention(layers, x)
    if kind == "excite":
        gate = layers.unit(jax.nn.relu(layers.unit(x.mean((1, 2), keepdims=True), 4)), c)
        return x * jax.nn.sigmoid(gate)
    if kind == "dense_skip":
        return jnp.concatenate([x, act(layers.unit(x, 8, kernel, 1, 1))], -1)
    if kind == "pool":
        fn, start = (lax.max, -jnp.inf) if kernel > 3 else (lax.add, 0.0)
        y = lax.reduce_window(x, start, fn, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return y if kernel > 3 else y / 4
    wide = jax.image.resize(x, (x.shape[0], 2 * x.shape[1], 2 * x.shape[2], c), "nearest")
    return act(layers.unit(wide, c, 3, 2))


def random_network(seed: int) -> Network:
    """The network of this seed: 16 to 40 px, 3 to 6 blocks, up to a few MMACs."""
    rng = np.random.default_rng(seed)
    size, channels, stem = (
        int(rng.choice([16, 24, 33, 40])),
        int(rng.choice([1, 3])),
        int(rng.choice([8, 12, 16])),
    )
    blocks = tuple(str(b) for b in rng.choice(BLOCKS, int(rng.integers(3, 7))))
    kernels = rng.choice([1, 3, 5, 7], len(blocks), p=[0.1, 0.5, 0.3, 0.1])
    strides = rng.choice([1, 2], len(blocks), p=[0.6, 0.4])
    activation = str(rng.choice(list(ACTIVATIONS)))
    act = ACTIVATIONS[activation]

    def run(layers: _Layers, image: jax.Array) -> jax.Array:
        x = act(layers.unit(image, stem, 3, 2))
        for kind, kernel, stride in zip(blocks, kernels.tolist(), strides.tolist(), strict=True):
            if (kind == "pool" and x.shape[1] < 4) or (kind == "attention" and x.shape[1] > 12):
                continue
            x = _block(kind, layers, x, act, kernel, stride)
        x = x.mean((1, 2)) if x.shape[1] > 6 else x.reshape(x.shape[0], -1)
        return layers.dense(x, 42)

    params: dict[str, Any] = {}
    shape = (1, size, size, channels)
    jax.eval_shape(lambda x: run(_Layers(params, rng), x), jax.ShapeDtypeStruct(shape, jnp.float32))
    return Network(lambda p, x: run(_Layers(p, None), x), params, shape, blocks, activation)
