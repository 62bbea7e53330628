"""Linen modules of the hand network. With `apply.py` the only place that knows flax.linen."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from research.nets import formulation as fm
from research.nets.handnet import Block, HandNet
from research.nets.heads import outputs

NORM_EPSILON, NORM_MOMENTUM = 1e-5, 0.95


class Site(nn.Module):
    """A named tensor, an integer on the device: taps, ranges, graph and exporter share the name."""

    site: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Identity on `x`, marked with the site's name in the jaxpr."""
        return checkpoint_name(x, self.site)


class Norm(nn.Module):
    """Batch norm (Ioffe & Szegedy 2015) with the names and numbers of `nn.BatchNorm`; float32 statistics."""

    formulation: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """`[N,H,W,C]` -> the same shape; `train` uses the batch's statistics and moves the running ones."""
        size = (x.shape[3],)
        scale = self.param("scale", nn.initializers.ones, size)
        bias = self.param("bias", nn.initializers.zeros, size)
        mean = self.variable("batch_stats", "mean", jnp.zeros, size)
        var = self.variable("batch_stats", "var", jnp.ones, size)
        if not train:
            slope = scale * jax.lax.rsqrt(var.value + NORM_EPSILON)
            return fm.affine(x - mean.value.astype(x.dtype).reshape(1, 1, 1, -1), slope, bias)
        y, batch_mean, batch_var = fm.norm_by_batch(x, scale, bias, NORM_EPSILON, self.formulation)
        if not self.is_initializing():
            for kept, seen in ((mean, batch_mean), (var, batch_var)):
                kept.value = NORM_MOMENTUM * kept.value + (1 - NORM_MOMENTUM) * seen
        return y


class Unit(nn.Module):
    """Convolution `kind` ("conv" or "depthwise"), batch norm (or bias once folded), ReLU6 if `act`."""

    kind: str
    out: int
    kernel: int = 1
    stride: int = 1
    act: bool = True
    norm: bool = True
    formulation: str = fm.CANONICAL
    compute: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """`[N,H,W,C]` -> `[N,H/stride,W/stride,out]`; `train` uses and updates batch statistics."""
        fan = x.shape[3] if self.kind == "conv" else 1
        he = nn.initializers.variance_scaling(
            2.0, "fan_in", "truncated_normal", in_axis=(0, 1, 2), out_axis=3
        )
        kernel = self.param("kernel", he, (self.kernel, self.kernel, fan, self.out))
        convolve = fm.conv if self.kind == "conv" else fm.depthwise
        x = convolve(
            x, kernel if self.compute is None else kernel.astype(x.dtype), self.stride, self.formulation
        )
        if self.norm:
            x = Norm(self.formulation, name="norm")(x, train)
        else:
            bias = self.param("bias", nn.initializers.zeros, (self.out,))
            x = x + bias.astype(x.dtype)[None, None, None, :]
        if self.act:
            x = fm.relu6(x) if self.formulation == fm.SHIFTED else jnp.clip(x, 0.0, 6.0)
        return Site("/".join(self.path))(x)


class InvertedResidual(nn.Module):
    """One `Block` of the spec, with the residual where shapes allow it."""

    block: Block
    norm: bool
    formulation: str
    compute: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """`[N,H,W,C]` -> `[N,H/stride,W/stride,block.out]`."""
        b = self.block
        shared = _shared(self.norm, self.formulation, self.compute)
        if b.fused:
            y = Unit("conv", b.mid, b.kernel, b.stride, name="expand", **shared)(x, train)
        else:
            y = Unit("conv", b.mid, name="expand", **shared)(x, train)
            y = Unit("depthwise", b.mid, b.kernel, b.stride, name="depthwise", **shared)(y, train)
        y = Unit("conv", b.out, act=False, name="project", **shared)(y, train)
        if b.stride == 1 and x.shape[3] == b.out:
            y = Site("/".join(self.path) + "/add")(x + y)
        return y


def _shared(norm: bool, formulation: str, compute: Any) -> dict[str, Any]:
    return {"norm": norm, "formulation": formulation, "compute": compute}


class HandModule(nn.Module):
    """The whole network of a `HandNet`: `[N,S,S,1]` in 0..1 -> what its head puts out, for `heads.decode`."""

    spec: HandNet
    formulation: str
    compute: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Coordinates `[N,42]`, logits `[N,42*bins]`, or a heatmap `[N,H,W,21*r*r]`."""
        spec = self.spec
        shared = _shared(spec.norm, self.formulation, self.compute)
        x = Site("image")(x if self.compute is None else x.astype(self.compute))
        x = Unit("conv", spec.stem, 3, 2, name="stem", **shared)(x, train)
        for i, block in enumerate(spec.blocks):
            x = InvertedResidual(block, name=f"b{i}", **shared)(x, train)
        x = Unit("conv", spec.neck, name="neck", **shared)(x, train)
        wide, init = outputs(spec.head, spec.plane()), nn.initializers.normal(0.01)
        if spec.head.kind == "heatmap":
            return Unit("conv", wide, act=False, name="head", **shared | {"norm": False})(x, train)
        x = Site("flat")(x.reshape(x.shape[0], -1))
        if spec.head.hidden:
            x = nn.Dense(spec.head.hidden, name="hidden", dtype=self.compute)(x)
            x = Site("hidden")(jnp.clip(x, 0.0, 6.0))
        x = nn.Dense(wide, name="head", kernel_init=init, dtype=self.compute)(x)
        return Site("head")(x)
