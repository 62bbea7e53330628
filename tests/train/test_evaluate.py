"""Errors of a network on a test set, against a direct forward and numpy."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import nets
from research.graph import export, observe, trace
from research.nets import HandNet
from research.pytrees import flatten
from research.train import evaluate
from research.train.evaluate import errors, input_px, predict, predict_tflite
from tests.smoke import Finished, smoke

NET = smoke().tracks["v1"].net
RNG = np.random.default_rng(0)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    params, norm_stats = nets.init(NET, jax.random.key(1))
    images = RNG.uniform(size=(11, 32, 32)).astype(np.float32)
    whole = np.asarray(evaluate._forward(NET)(params, norm_stats, jnp.asarray(images)))
    monkeypatch.setattr(evaluate, "CHUNK", 4)
    found = predict(NET, params, norm_stats, images)
    assert found.shape == (11, 21, 2)
    np.testing.assert_allclose(found, whole, atol=1e-5)


def test_images_of_another_size_are_refused() -> None:
    params, norm_stats = nets.init(NET, jax.random.key(1))
    with pytest.raises(ValueError, match=r"this network takes \[N,32,32\]"):
        predict(NET, params, norm_stats, np.zeros((2, 64, 64), np.float32))


def test_int8_file_predicts_what_the_float_network_predicts(finished: Finished) -> None:
    images = RNG.uniform(size=(5, 32, 32)).astype(np.float32)
    model = finished.export("v1")
    assert input_px(model) == 32
    found = predict_tflite(model, images)
    assert found.shape == (5, 21, 2)
    assert np.abs(found - 0.5).max() < 1  # fractions of the crop, not offsets from its centre
    assert predict_tflite(model, images[3:4]).tobytes() == found[3:4].tobytes()


def other_file(folder: Path, size: tuple[int, int, int], wide: int) -> bytes:
    """A .tflite of one dense layer on an input of another shape or with another output."""

    def fn(params: dict, image: jax.Array) -> jax.Array:
        flat = jax.ad_checkpoint.checkpoint_name(image, "image").reshape(1, -1)
        return jax.ad_checkpoint.checkpoint_name(flat @ params["head"]["kernel"], "head")

    params = {"head": {"kernel": RNG.normal(size=(int(np.prod(size)), wide)).astype(np.float32)}}
    graph = trace(fn, params, jax.ShapeDtypeStruct((1, *size), jnp.float32))
    return export(graph, flatten(params), observe(graph, flatten(params), RNG.uniform(size=(2, *size))), {})


def test_files_that_are_no_hand_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not take square grey crops"):
        input_px(other_file(tmp_path, (6, 8, 1), 42))
    with pytest.raises(ValueError, match="does not take square grey crops"):
        input_px(other_file(tmp_path, (8, 8, 3), 42))
    with pytest.raises(ValueError, match=r"puts out \[10\] numbers an image, not 42"):
        predict_tflite(other_file(tmp_path, (8, 8, 1), 10), np.zeros((1, 8, 8)))
    with pytest.raises(ValueError, match="TFLite"):
        input_px(b"junk")


def test_numbers_against_numpy() -> None:
    truth, off = RNG.uniform(size=(6, 21, 2)), RNG.normal(size=(6, 21, 2)) * 0.02
    found = errors(truth + off, truth, 64)
    distance = np.sqrt((off**2).sum(2))
    box = (truth.max(1) - truth.min(1)).max(1)
    assert found["error_px"] == pytest.approx(64 * distance.mean(), rel=1e-4)
    assert found["error_box"] == pytest.approx((distance / box[:, None]).mean(), rel=1e-4)
    assert found["pck_05"] == pytest.approx((distance / box[:, None] <= 0.05).mean())
    assert all(type(value) is float and np.isfinite(value) for value in found.values())


def test_the_compiled_forward_is_shared_by_equal_specs() -> None:
    twin = HandNet(**{name: getattr(NET, name) for name in ("size_px", "stem", "blocks", "neck", "norm")})
    assert evaluate._forward(NET) is evaluate._forward(twin)
