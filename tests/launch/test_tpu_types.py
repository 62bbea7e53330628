"""Names and sizes of TPU slices."""

import pytest

from launch.tpu_types import GENERATIONS, parse_slice


@pytest.mark.parametrize(
    ("text", "chips", "hosts", "per_host", "accelerator"),
    [
        ("v5e:1x1", 1, 1, 1, "v5litepod-1"),
        ("v5e:2x2", 4, 1, 4, "v5litepod-4"),
        ("v5e:2x4", 8, 1, 8, "v5litepod-8"),
        ("v5e:4x4", 16, 4, 4, "v5litepod-16"),
        ("v6e:8x8", 64, 16, 4, "v6e-64"),
        ("v4:2x2x1", 4, 1, 4, "v4-8"),
        ("v4:2x2x2", 8, 2, 4, "v4-16"),
        ("v5p:4x4x4", 64, 16, 4, "v5p-128"),
    ],
)
def test_sizes(text: str, chips: int, hosts: int, per_host: int, accelerator: str) -> None:
    got = parse_slice(text)
    assert (got.chips, got.hosts, got.chips_per_host, got.accelerator_type) == (
        chips,
        hosts,
        per_host,
        accelerator,
    )


def test_hosts_always_hold_all_chips() -> None:
    for name, generation in GENERATIONS.items():
        for topology in generation.topologies:
            got = parse_slice(f"{name}:{topology}")
            assert got.hosts * got.chips_per_host == got.chips
            assert got.runtime
            assert got.gke_accelerator


@pytest.mark.parametrize("text", ["", "v5e", "v5e:", "v9:2x2", "v5e:3x3", "v5e:4x4x4", "v4:4x4", "v5e:4X4"])
def test_what_is_not_offered_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="--topology") as refused:
        parse_slice(text)
    assert "\n" not in str(refused.value)
