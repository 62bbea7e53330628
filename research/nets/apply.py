"""The functional door to the networks: init, one forward, the traced function, all on plain dicts."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.nets.formulation import CANONICAL, fastest
from research.nets.handnet import HandNet
from research.nets.heads import decode
from research.nets.layers import HandModule, Site
from research.pytrees import nearest

Tree = dict[str, Any]
SiteFn = Callable[[jax.Array], jax.Array]


class Forward(NamedTuple):
    """`keypoints [N,21,2]` in 0..1, `taps` {site: activation before its site function}, new `norm_stats`."""

    keypoints: jax.Array
    taps: dict[str, jax.Array]
    norm_stats: Tree


def init(spec: HandNet, key: jax.Array) -> tuple[Tree, Tree]:
    """Fresh `(params, norm_stats)` of a spec."""
    image = jnp.zeros((1, spec.size_px, spec.size_px, 1))
    variables = HandModule(spec, CANONICAL).init(key, image, False)
    return variables["params"], variables.get("batch_stats", {})


@functools.cache
def shapes(spec: HandNet) -> tuple[Tree, Tree]:
    """`init` without computing: trees of jax.ShapeDtypeStruct, made once a spec; not to be written to."""
    return jax.eval_shape(lambda: init(spec, jax.random.key(0)))


def forward(
    spec: HandNet,
    params: Tree,
    norm_stats: Tree,
    images: jax.Array,
    *,
    train: bool = False,
    sites: Mapping[str, SiteFn] | None = None,
    formulation: str | None = None,
    compute: str = "float32",
) -> Forward:
    """One forward of `images [N,S,S]` grey 0..1; `sites` {glob: fn} is applied where tensors become integers.

    `compute="bfloat16"` computes in that; statistics, what site functions see and all that comes out are float32 still.
    Raises ValueError for images of another size and for a site rule that matches nothing.
    """
    if images.ndim != 3 or images.shape[1:] != (spec.size_px, spec.size_px):
        wanted = f"[N,{spec.size_px},{spec.size_px}]"
        raise ValueError(f"images have shape {list(images.shape)}; this network takes {wanted} grey crops")
    taps: dict[str, jax.Array] = {}
    used: set[str] = set()

    def at_site(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        out = call(*args, **kwargs)
        if not isinstance(context.module, Site) or context.method_name != "__call__":
            return out
        name = context.module.site
        taps[name] = wide = _wide(out)
        for pattern, fn in (sites or {}).items():
            if fnmatch.fnmatchcase(name, pattern):
                used.add(pattern)
                return fn(wide).astype(out.dtype)
        return out

    variables = {"params": params, "batch_stats": norm_stats}
    module = HandModule(spec, formulation or fastest(), jnp.bfloat16 if compute == "bfloat16" else None)
    with nn.intercept_methods(at_site):
        if train:
            flat, new = module.apply(variables, images[..., None], True, mutable=["batch_stats"])
            norm_stats = new.get("batch_stats", {})
        else:
            flat = module.apply(variables, images[..., None], False)
    for pattern in sites or {}:
        if pattern not in used:
            raise ValueError(f"site rule {pattern!r} matches nothing; {nearest(pattern, taps)}")
    return Forward(decode(_wide(flat)), taps, norm_stats)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x


def traced(spec: HandNet) -> tuple[Callable[[Tree, jax.Array], jax.Array], Tree, jax.ShapeDtypeStruct]:
    """What the graph is made from: `(fn, parameter shapes, image shape)` of the folded network.

    `fn(params, image [1,S,S,1])` -> what the head puts out (`heads.decode` reads it), computed canonically.
    """
    folded = spec.folded()

    def fn(params: Tree, image: jax.Array) -> jax.Array:
        return cast(jax.Array, HandModule(folded, CANONICAL).apply({"params": params}, image, False))

    params, _ = shapes(folded)
    return fn, params, jax.ShapeDtypeStruct((1, spec.size_px, spec.size_px, 1), jnp.float32)
