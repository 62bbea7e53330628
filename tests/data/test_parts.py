"""Arrays made in parts: once, in order, whole; a damaged part is named."""

from pathlib import Path

import numpy as np
import pytest

from research.data.parts import parts

PART = 64


def test_parts_are_made_once_and_in_order(tmp_path: Path) -> None:
    made = []

    def make(start: int, stop: int) -> dict[str, np.ndarray]:
        made.append(start)
        if len(made) == 2:
            raise KeyboardInterrupt
        return {"a": np.arange(start, stop)}

    with pytest.raises(KeyboardInterrupt):
        parts(tmp_path / "f", PART * 2 + 5, make, PART)
    found = parts(tmp_path / "f", PART * 2 + 5, make, PART)["a"]
    np.testing.assert_array_equal(found, np.arange(PART * 2 + 5))
    assert made == [0, PART, PART, 2 * PART]
    parts(tmp_path / "f", PART * 2 + 5, lambda start, stop: {}, PART)
    part = tmp_path / "f" / f"{PART:08d}.npz"
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"00000064\.npz is damaged .*: delete it"):
        parts(tmp_path / "f", PART * 2 + 5, make, PART)
    assert {path.suffix for path in (tmp_path / "f").iterdir()} == {".npz"}
