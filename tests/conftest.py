"""The strict climate every test lives in, set before any test module imports jax.

Two fake devices, so that sharding is always exercised; silent rank promotion raises; Python sockets reach
this machine only; hypothesis tries the same examples every time. Warnings are errors (pyproject.toml).
"""

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CACHE = Path(__file__).resolve().parent.parent / ".cache"
CACHE.mkdir(exist_ok=True)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["MPLBACKEND"] = "Agg"
os.environ["MPLCONFIGDIR"] = str(CACHE / "matplotlib")
os.environ["TFDS_DATA_DIR"] = str(CACHE / "no-data-sets-in-tests")
os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(CACHE / "hypothesis")

import chex  # noqa: E402
import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

from tests.smoke import Finished, finish, found  # noqa: E402

CLIMATE = {
    "jax_num_cpu_devices": 2,
    "jax_numpy_rank_promotion": "raise",
    "jax_enable_x64": False,
    # Compiled programs are kept between runs; those that compile in no time are not worth a file.
    "jax_compilation_cache_dir": str(CACHE / "jax-tests"),
    "jax_persistent_cache_min_compile_time_secs": 0.3,
}
for _name, _value in CLIMATE.items():
    jax.config.update(_name, _value)

MOST_MAPS = 30_000

hypothesis.settings.register_profile(
    "house",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=25,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],  # it looks at the wall clock
)
hypothesis.settings.load_profile("house")


class NetworkUsed(RuntimeError):
    """A test reached for another machine. Not an OSError, so that no library swallows it and waits."""


def is_this_machine(address: object) -> bool:
    """Whether a socket address (a Unix path, or a tuple starting with the host) stays on this machine."""
    host = address[0] if isinstance(address, tuple) else address
    if host is None or isinstance(address, str | bytes):
        return True
    host = host.decode() if isinstance(host, bytes) else str(host)
    return host in ("", "localhost", "::1", "0.0.0.0", "::") or host.startswith("127.")


def _guarded(call: Callable[..., Any], position: int) -> Callable[..., Any]:
    """A socket function that first looks at the address in the given position of its arguments."""

    def guard(*args: Any, **kwargs: Any) -> Any:
        address = args[position] if len(args) > position else kwargs.get("host")
        if not is_this_machine(address if position == 1 else (address,)):
            raise NetworkUsed(f"tests use no network, but something asked for {address!r}")
        return call(*args, **kwargs)

    return guard


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Connections and name look-ups from Python stay on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _guarded(socket.socket.connect, 1))
        patch.setattr(socket.socket, "connect_ex", _guarded(socket.socket.connect_ex, 1))
        patch.setattr(socket, "getaddrinfo", _guarded(socket.getaddrinfo, 0))
        yield


@pytest.fixture(autouse=True)
def same_climate() -> Iterator[None]:
    """Put jax's settings back after a test that changed them, so that no test depends on its neighbours."""
    yield
    for name, value in CLIMATE.items():
        if getattr(jax.config, name) != value:
            jax.config.update(name, value)


@pytest.fixture(scope="module", autouse=True)
def few_programs() -> Iterator[None]:
    """Drops compiled programs before they take all the memory maps that Linux grants a process (65,530): past them the
    compiler dies of a segmentation fault."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
        chex.clear_trace_counter()  # what is traced again was not traced in vain


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that look at the finished run all go to one worker, and first: the other need not wait for it.

    The rest go file by file, those of training first: what is long does not begin when the other worker is done.
    """
    looking = {item.path for item in items if "finished" in getattr(item, "fixturenames", ())}
    for item in items:
        group = "finished" if item.path in looking else item.nodeid.split("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))
    files = {path: place for place, path in enumerate(dict.fromkeys(item.path for item in items))}
    items.sort(key=lambda item: (item.path not in looking, -files[item.path]))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Finished:
    """One finished smoke run of the main job, shared by every test that only looks at it, in every worker."""
    if worker_id == "master":
        return finish(tmp_path_factory.mktemp("finished") / "v2")
    folder = tmp_path_factory.getbasetemp().parent / "finished"  # of all workers
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return found(folder / "v2") or finish(folder / "v2")
