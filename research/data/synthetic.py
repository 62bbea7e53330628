"""Rendered hands on the fly: a batch is a pure function of (spec, seed, step).

Example `index` of a stream is drawn from fold_in(fold_in(key(seed), stream), index), so any example can be
made again alone, and the training and the test stream never share a key.
"""

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp

from research.data.raster import apart
from research.data.scene import SCENE_NUMBERS, Look, Scene, sample_scene
from research.data.scene import draw as draw_scene
from research.data.sensor import margin_px, picture
from research.hand.chance import draw

TRAIN_STREAM: int = 0
TEST_STREAM: int = 1
_CHUNK, _LANES = 8, 2
"""Examples posed side by side, then drawn one after another; the chunks go two ways, for two cores. Every call runs
the same loop body, at least twice a way, whatever its batch: a loop of one turn would be inlined and rounded
differently, and an example would differ in its last bits."""


@dataclass(frozen=True)
class RenderedHands:
    """Rendered grey crops of one hand.

    size_px: side of the square image, at least 16. test_images: size of the held-out set.
    look: how far the renders vary.
    """

    size_px: int = 64
    test_images: int = 512
    look: Look = field(default_factory=Look)

    def __post_init__(self) -> None:
        if self.size_px < 16:
            raise ValueError(f"size_px must be at least 16, got {self.size_px}")
        if self.test_images < 1:
            raise ValueError(f"test_images must be at least 1, got {self.test_images}")

    def smoke(self) -> "RenderedHands":
        """The one tiny shape that every config shares in smoke tests."""
        return RenderedHands(size_px=32, test_images=16, look=self.look)


def scene_at(
    spec: RenderedHands, seed: jax.Array | int, index: jax.Array | int, stream: jax.Array | int = TRAIN_STREAM
) -> tuple[Scene, jax.Array]:
    """The scene of one example, and the key of its sensor's noise."""
    root = jax.random.fold_in(jax.random.key(jnp.asarray(seed, jnp.uint32)), jnp.asarray(stream, jnp.uint32))
    key = jax.random.fold_in(root, jnp.asarray(index, jnp.uint32))
    k_noise, k_rest = jax.random.split(key)
    return sample_scene(draw(k_rest, SCENE_NUMBERS), spec.look, spec.size_px), k_noise


def _render(spec: RenderedHands, drawn: tuple[Scene, jax.Array]) -> dict[str, jax.Array]:
    """One example: image [H, W] in 0..1 and keypoints [21, 2]."""
    scene, key = drawn
    image = draw_scene(scene, spec.size_px)
    return {
        "image": picture(image, scene.sensor, key, margin_px(spec.size_px)),
        "keypoints": scene.keypoints,
    }


@partial(jax.jit, static_argnames="spec")
def _chunks_at(
    spec: RenderedHands, stream: jax.Array, seed: jax.Array, chunks: jax.Array
) -> dict[str, jax.Array]:
    """Examples of indices [C, _CHUNK], chunk by chunk; a jit of its own, so callers share its compilation."""

    def chunk(indices: jax.Array) -> dict[str, jax.Array]:
        scenes = jax.vmap(lambda index: scene_at(spec, seed, index, stream))(indices)
        return jax.lax.map(lambda one: apart(partial(_render, spec), one), scenes)

    ways = [jax.lax.map(chunk, part) for part in jnp.split(chunks, _LANES)]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *ways)


def examples_at(
    spec: RenderedHands, seed: jax.Array | int, indices: jax.Array, stream: int = TRAIN_STREAM
) -> dict[str, jax.Array]:
    """Examples of a stream by their indices.

    Args:
      spec: what to render (static under jit).
      seed: integer scalar. indices: [B] integers >= 0.
      stream: TRAIN_STREAM or TEST_STREAM.

    Returns:
      {"image": [B, H, W] float32 in 0..1, "keypoints": [B, 21, 2] float32, fractions of the crop}.

    Raises:
      ValueError: no indices, or a seed outside 0..2**32 - 1.
    """
    if indices.ndim != 1 or indices.shape[0] == 0:
        raise ValueError(f"indices must be [B] with at least one index, got shape {list(indices.shape)}")
    if isinstance(seed, int) and not 0 <= seed < 2**32:
        raise ValueError(f"seed must lie in 0..2**32 - 1, got {seed}")
    count = indices.shape[0]
    turns = _LANES * max(2, -(-count // (_CHUNK * _LANES)))
    padded = jnp.pad(indices.astype(jnp.uint32), (0, turns * _CHUNK - count)).reshape(turns, _CHUNK)
    drawn = _chunks_at(spec, jnp.asarray(stream, jnp.uint32), jnp.asarray(seed, jnp.uint32), padded)
    return jax.tree.map(lambda part: part.reshape(-1, *part.shape[2:])[:count], drawn)


def examples_together(
    spec: RenderedHands, seed: jax.Array | int, indices: jax.Array, stream: int = TRAIN_STREAM
) -> dict[str, jax.Array]:
    """The examples of `examples_at` drawn in one go, without its loop: for chips that a loop of small turns starves.

    Equal to rounding, not to the bit. Seed and indices may be traced.
    """
    drawn = jax.vmap(lambda index: scene_at(spec, seed, index, stream))(indices)
    return jax.vmap(lambda one: _render(spec, one))(drawn)


def batch_at(
    spec: RenderedHands, seed: jax.Array | int, step: jax.Array | int, batch: int
) -> dict[str, jax.Array]:
    """The training batch of a step: examples step * batch ... (step + 1) * batch - 1 of the training stream.

    Jittable in seed and step; see examples_at for what it returns. ValueError for a batch below 1.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    indices = jnp.asarray(step, jnp.uint32) * batch + jnp.arange(batch, dtype=jnp.uint32)
    return examples_at(spec, seed, indices)


def example_at(
    spec: RenderedHands, seed: jax.Array | int, index: jax.Array | int, stream: int = TRAIN_STREAM
) -> dict[str, jax.Array]:
    """One example, equal bit for bit to the one in its batch: image [H, W] and keypoints [21, 2]."""
    found = examples_at(spec, seed, jnp.asarray(index, jnp.uint32)[None], stream)
    return jax.tree.map(lambda part: part[0], found)
