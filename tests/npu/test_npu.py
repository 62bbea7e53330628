"""The face of the room: one import prices a network, and nothing optional is needed for it."""

import subprocess
import sys

import research.npu as npu


def test_every_name_of_the_face_exists() -> None:
    assert all(hasattr(npu, name) for name in npu.__all__)
    assert callable(npu.cost)
    assert callable(npu.referee)


def test_pricing_needs_no_optional_package() -> None:
    code = (
        "import sys; from research.npu import *; table = layer_table(v1_graph()); "
        "found = [m for m in sys.modules if m.split('.')[0] in ('ethosu', 'ai_edge_litert', 'flax')]; "
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
