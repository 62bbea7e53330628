"""In one process nothing communicates; what several do is in tests/launch/test_distributed.py, which starts them."""

from contextlib import contextmanager

import jax
import jax.numpy as jnp
import pytest

from research.train.hosts import (
    Agreement,
    by_first,
    first_only,
    held_by_first,
    is_first,
    local,
    several,
    share,
    stop_if_told,
    whole,
)
from research.train.mesh import data_mesh, replicated


def test_alone_everything_is_done_here() -> None:
    assert (several(), is_first()) == (False, True)
    kept = object()
    assert share(kept) is kept
    assert by_first(lambda: kept) is kept
    assert first_only(lambda: kept) is kept


def test_an_error_is_the_error() -> None:
    def fail() -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        by_first(fail)
    with pytest.raises(OSError, match="no space left"), held_by_first(lambda: contextmanager(fail)()):
        pytest.fail("entered")


def test_a_context_is_held() -> None:
    seen: list[str] = []

    @contextmanager
    def opened():
        seen.append("in")
        yield
        seen.append("out")

    with held_by_first(opened):
        seen.append("held")
    assert seen == ["in", "held", "out"]


def test_nothing_stops_a_process_alone() -> None:
    stop = Agreement(data_mesh())
    assert [stop.told(), stop.told()] == [0, 0]
    stop_if_told()


def test_arrays_stay_where_they_lie() -> None:
    mesh = data_mesh(2)
    tree = {"x": jax.device_put(jnp.arange(4.0), replicated(mesh))}
    assert whole(tree) is tree
    assert local(mesh) == replicated(mesh)
