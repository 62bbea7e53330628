"""What the referee says of a network and its layers, read from the compiler's report and its database."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from research.npu.chip import Chip
from research.npu.weights import bad_groups

Row = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class LayerVerdict:
    """The referee's numbers of one operator of the file (all NPU operators made from it, summed)."""

    name: str
    op: str  # the compiler's operator, e.g. "Conv2D"; "Passthrough": left to the CPU
    cycles: float  # including waits for memory
    npu_cycles: float
    mac_cycles: float
    output_cycles: float
    sram_cycles: float
    flash_cycles: float
    weight_bytes: float  # encoded
    weight_format: str  # "Sparse2_4", "Default", or "" where there are no weights
    traversal: str
    ofm_block: tuple[int, ...]  # rows, columns, channels
    ifm_block: tuple[int, ...]
    microblock: tuple[int, ...]
    depth_slices: int
    buffering: str  # of the weights: "None", "Single", "Double"
    rows: int = 1  # operations that it became, but those inside others


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the referee says of one network on one chip."""

    chip: str
    ms: float
    cycles: float
    sram_kb: float
    flash_kb: float
    weights_kb_encoded: float
    macs: float  # MACs executed: those of 2:4 layers count half
    cpu_ops: int  # operators the NPU cannot run; 0 in a network of ours
    layers: tuple[LayerVerdict, ...]

    def layer(self, name: str) -> LayerVerdict:
        """The layer of that name; KeyError with the names there are."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"no layer {name!r}; there are {', '.join(layer.name for layer in self.layers)}")


def read(result: Any, names: tuple[str, ...], chip: Chip) -> Verdict:
    """The verdict in the compiler's result; `names` are those of the file's operators, in file order."""
    perf = result.perf_report
    memories = perf.memories.values() if hasattr(perf.memories, "values") else perf.memories
    peak = {memory.memoryName: memory.peakUsage for memory in memories}
    tables: dict[str, list[Row]] = {
        name: [dict(zip(table.header, row, strict=True)) for row in table.data]
        for name, table in result.opt_database.tables.items()
    }
    return Verdict(
        chip=chip.name,
        ms=perf.totalCycles / chip.cycles_per_ms,
        cycles=float(perf.totalCycles),
        sram_kb=peak.get("Sram", 0) / 1024,  # absent where nothing runs on the NPU
        flash_kb=peak.get("OffChipFlash", 0) / 1024,
        weights_kb_encoded=perf.encodedWeights / 1024,
        macs=float(perf.macCount),
        cpu_ops=int(perf.cpuOps),
        layers=_layers(tables, names),
    )


def _layers(tables: Mapping[str, list[Row]], names: tuple[str, ...]) -> tuple[LayerVerdict, ...]:
    """One entry an operator of the file, in the order of execution; a reshape is free and left out."""
    operator_of = {row["id"]: int(row["ext_key"]) for row in tables["source"]}
    others = [{row["id"]: row for row in tables.get(name, [])} for name in ("perf_debug", "perf_debug_main")]
    groups: dict[int, list[Row]] = {}
    for row in tables["perf"]:
        joined = {**row, **others[0][row["id"]], **others[1].get(row["id"], {})}
        groups.setdefault(operator_of.get(row["source_id"], -1), []).append(joined)
    return tuple(
        _layer(rows, names[operator] if 0 <= operator < len(names) else rows[-1]["name"])
        for operator, rows in groups.items()
    )


def _layer(rows: list[Row], name: str) -> LayerVerdict:
    """Sums the rows of one operator; its words and blocks are those of the row with the most work."""
    head = max(rows, key=lambda row: (int(row["mac_count"]), int(row["op_cycles"])))

    def total(column: str) -> float:
        return sum(float(row.get(column) or 0) for row in rows)

    def block(kind: str) -> tuple[int, ...]:
        cells = [head.get(f"{kind}_{axis}", "") for axis in "hwc"]
        return tuple(int(cell or 1) for cell in cells) if any(cells) else ()

    return LayerVerdict(
        name=name, op=head["operator"], cycles=total("op_cycles"), npu_cycles=total("npu_cycles"),
        mac_cycles=total("mac_cycles"), output_cycles=total("ao_cycles"),
        sram_cycles=total("Sram_ac"), flash_cycles=total("OffChipFlash_ac"),
        weight_bytes=total("weight_total_bytes"), weight_format=head["weight_format"].split("|")[-1],
        traversal=head.get("traversal", ""), ofm_block=block("ofm_block"), ifm_block=block("ifm_block"),
        microblock=block("ofm_ublock"), depth_slices=max(len(head["ofm_depth_slices"].split("|")) - 1, 1),
        buffering=head["weight_buffering"] or "None", rows=sum(float(row["op_cycles"]) > 0 for row in rows),
    )  # fmt: skip


def sparse_reason(layer: LayerVerdict, chip: Chip, kernel: np.ndarray | None = None) -> str:
    """Why the referee does not run `layer` as 2:4; "" where it does.

    Args:
      kernel: the layer's weights [..., in, out], int8, to tell a broken pattern from one without gain.
    """
    if layer.weight_format == "Sparse2_4":
        return ""
    if not layer.weight_format:
        return "no weights"
    if not chip.sparse_2_4:
        return f"{chip.name} has no 2:4"
    if layer.op == "DepthwiseConv2D":
        return "depthwise: 2:4 needs a sum over input channels"
    if kernel is not None and kernel.dtype == np.int8 and bool((kernel == -128).any()):
        return "a weight is -128: 2:4 needs -127..127"
    if kernel is not None:
        bad, groups = bad_groups(kernel)
        if bad:
            return f"{bad} of {groups} groups have fewer than 2 zeros in 4"
        return "2:4 brings no gain here, says the compiler"
    return "dense weights, or 2:4 without gain"
