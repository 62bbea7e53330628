"""A small hand-made result: every field of the schema, some nulls, two hands drawn as capsules."""

import base64
import io
import itertools
import math

from PIL import Image, ImageDraw, ImageFilter

SIDE_PX = 64
BONES = [(a, a + 1) for finger in range(5) for a in range(4 * finger + 1, 4 * finger + 4)]
OPEN_HAND = [
    (0.50, 0.90), (0.38, 0.81), (0.29, 0.71), (0.22, 0.62), (0.17, 0.54), (0.41, 0.56), (0.38, 0.41),
    (0.36, 0.30), (0.35, 0.21), (0.50, 0.53), (0.50, 0.37), (0.50, 0.26), (0.50, 0.16), (0.59, 0.55),
    (0.61, 0.41), (0.63, 0.31), (0.64, 0.23), (0.66, 0.61), (0.71, 0.50), (0.75, 0.42), (0.78, 0.35),
]  # fmt: skip
CHIP = "Ethos-U85-128"


def hand(turn: float, scale: float) -> dict:
    """A crop of the open hand, turned (radians) about the middle, with two slightly wrong predictions."""
    cos, sin = math.cos(turn) * scale, math.sin(turn) * scale
    true = [
        [0.5 + cos * (x - 0.5) - sin * (y - 0.5), 0.5 + sin * (x - 0.5) + cos * (y - 0.5)]
        for x, y in OPEN_HAND
    ]
    large = [(x * SIDE_PX * 4, y * SIDE_PX * 4) for x, y in true]
    image = Image.new("L", (SIDE_PX * 4, SIDE_PX * 4), 38)
    pen = ImageDraw.Draw(image)
    pen.polygon([large[i] for i in (0, 1, 5, 9, 13, 17)], fill=150)
    for a, b in [*BONES, (0, 1), (0, 5), (0, 9), (0, 13), (0, 17)]:
        pen.line([large[a], large[b]], fill=150 + 4 * b, width=24)
        pen.ellipse(
            [large[b][0] - 12, large[b][1] - 12, large[b][0] + 12, large[b][1] + 12], fill=150 + 4 * b
        )
    image = image.filter(ImageFilter.GaussianBlur(4)).resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, "PNG")
    return {
        "image_png_base64": base64.b64encode(file.getvalue()).decode(),
        "true": true,
        "v1": _moved(true, 0.045, turn),
        "v2": _moved(true, 0.03, turn + 1),
    }


def _moved(points: list, by: float, phase: float) -> list:
    return [
        [x + by * math.sin(5 * i + phase), y + by * math.cos(7 * i + phase)]
        for i, (x, y) in enumerate(points)
    ]


def row(number: int, name: str, technique: str, arm: str, ms: float, error_px: float, **other) -> dict:
    """A line of the table; what is not named follows from `ms` (referee) and `error_px` (int8)."""
    line = {"row": number, "name": name, "technique": technique, "baseline": "-", "arm": arm}
    line |= {"chip": CHIP, "ms_simulated": 1.03 * ms, "ms_referee": ms, "step_x": None, "claim": "-"}
    line |= {"cumulative_x": None, "leave_one_out_x": None, "leave_one_out_error_px": None}
    line |= {"mj": 0.11 * ms + 0.08, "kb_encoded": 120 * ms, "sram_kb": 48.0, "macs": 4.1e6 * ms}
    line |= {"params": 130_000.0 * ms, "error_px_float": 0.97 * error_px, "error_px_int8": error_px}
    return line | {"error_box_int8": error_px / 44} | other


LAYERS = (
    ("stem", "conv", 9000, False),
    ("b0/expand", "conv", 7000, False),
    ("b0/depthwise", "depthwise", 6200, False),
    ("b0/project", "conv", 5000, True),
    ("b0/add", "add", 1200, False),
    ("b1/expand", "conv", 12000, True),
    ("b1/depthwise", "depthwise", 8000, False),
    ("b1/project", "conv", 16000, True),
    ("neck", "conv", 21000, True),
    ("head", "dense", 11000, True),
)


def layers(scale: float, sparse: bool) -> list:
    """Layers of a small net; the referee takes 2:4 for the wide ones only."""
    return [layer(name, op, scale * cycles, sparse and wide) for name, op, cycles, wide in LAYERS]


def layer(name: str, op: str, cycles: float, sparse: bool) -> dict:
    """One layer; 2:4 takes 38 % of the cycles off."""
    cycles *= 0.62 if sparse else 1.0
    return {
        "name": name,
        "op": op,
        "cycles_simulated": cycles * (1.05 if op == "conv" else 0.97),
        "cycles_referee": cycles,
        "weight_format": "Sparse2_4" if sparse else "Default",
        "note": "" if sparse else f"{op} without 2:4" if op == "depthwise" else "bound by its output stage",
    }


def train(start: float, end: float) -> dict:
    """A falling curve of 40 points."""
    step = [50.0 * i for i in range(1, 41)]
    error = [end + (start - end) * math.exp(-i / 7) * (1 + 0.06 * math.sin(3 * i)) for i in range(40)]
    return {"step": step, "error_px": error, "loss": [0.004 * e**1.5 for e in error]}


def arm(curves: dict, priced: list, ledger: tuple | list = (), stages: tuple | list = ()) -> dict:
    """One network's history on the one chip."""
    return {"train": curves, "layers": {CHIP: priced}, "ledger": list(ledger), "stages": list(stages)}


def line_of(result: dict, technique: str) -> dict:
    """The row of a technique."""
    return next(line for line in result["rows"] if line["technique"] == technique)


def forget(result: dict) -> dict:
    """The same result with every number of its rows unknown."""
    for line in result["rows"]:
        line |= {key: None for key, value in line.items() if isinstance(value, float) or key == "params"}
    return result


def example_result() -> dict:
    """A fresh result dict: a larger network and three techniques, n = 1."""
    stages = [
        {"stage": "dense", "ms_simulated": 1.349, "error_px": 2.62},
        {"stage": "search", "ms_simulated": 1.021, "error_px": 2.58},
        {"stage": "retrain sparse", "ms_simulated": 0.992, "error_px": 2.41},
        {"stage": "quantise", "ms_simulated": 0.992, "error_px": 2.51},
    ]
    ledger = [
        {"kind": "stage", "name": "dense", "detail": {"steps": 2000, "batch": 64, "learning_rate": 0.002}},
        {
            "kind": "stage",
            "name": "squeeze",
            "detail": {"transforms": ["sparse 2:4", "distill", "gates"], "steps": 1500},
        },
        {
            "kind": "rewrite",
            "name": "compact",
            "detail": {"channels": {"b0/expand": "96 -> 72"}, "max_difference": 3e-6},
        },
        {"kind": "rewrite", "name": "fold norm", "detail": {"units": 9, "max_difference": 1.1e-6}},
        {"kind": "rewrite", "name": "quantise int8", "detail": {"sites": 27, "images": 256}},
    ]
    rows = [
        row(-1, "v1 as it was", "-", "v1", 1.189, 2.90, claim="12 ms, 180 mW", chip="Ethos-U55-128"),
        row(0, "new NPU, same network", "npu", "v1", 0.929, 2.90),
        row(1, "larger network", "capacity", "v2", 1.31, 2.70, claim="2x capacity", params=250_000),
        row(2, "+ sparse", "sparse", "v2+sparse", 1.179, 2.77, claim="1.5x, -0.5 %"),
        row(3, "+ distill", "distill", "v2+sparse+distill", 1.179, 2.40, claim="+3 %", sram_kb=None),
        row(4, "+ gates", "gates", "v2+sparse+distill+gates", 0.963, 2.51, claim="1.15x, +1 %"),
    ]
    for before, line in itertools.pairwise(rows):
        line |= {"baseline": before["name"], "step_x": before["ms_referee"] / line["ms_referee"]}
        line["cumulative_x"] = rows[1]["ms_referee"] / line["ms_referee"]
    for line, speed_x, error_px in zip(rows[3:], (1.12, 1.0, 1.22), (-0.05, 0.41, -0.11), strict=True):
        line |= {"leave_one_out_x": speed_x, "leave_one_out_error_px": error_px}
    arms = {
        "v1": arm(train(9, 2.84), layers(1, False)),
        "v2": arm(train(9, 2.6), layers(1.4, False)),
        "v2+sparse": arm(train(9, 2.7), layers(1.4, True)),
        "v2+sparse+distill": arm(train(8.5, 2.3), layers(1.4, True)),
        "v2+sparse+distill+gates": arm(train(8.5, 2.4), layers(1.1, True), ledger, stages),
        "v2+distill+gates": arm(train(8.5, 2.4), layers(1.1, False)),
    }
    return {
        "name": "v2",
        "n": 1,
        "demo": True,
        "command": "python -m research.run configs/v2.py",
        "created": "2026-01-05T12:00:00+00:00",
        "versions": {"python": "3.11.9", "jax": "0.10.2", "vela": "5.2.0"},
        "device": "cpu x1",
        "energy": {"scale": 0.84, "p_static_mw": 60.0, "note": "The scale is set on V1 at 2.16 mJ."},
        "rows": rows,
        "arms": arms,
        "gallery": [hand(0.0, 1.0), hand(0.5, 0.95), hand(-0.6, 0.85), hand(2.6, 0.9)],
    }
