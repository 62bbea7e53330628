"""The bench's tables hold the figures, and the list of the worst begins with the worst."""

import pytest

from research.bench import fidelity_text, population
from research.bench.pricing import Priced, price_all
from research.bench.recipes import make
from research.npu import U55_128, read_network, referee

MODELS = [make(*one).model for one in population.networks(21, 2)]


def test_the_worst_layer_and_network_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    networks = [read_network(model) for model in MODELS]
    verdicts = [referee(model, U55_128) for model in MODELS]
    prices = price_all(networks, U55_128)
    name = next(x.name for x in verdicts[1].layers if x.op == "Conv2D")
    wrong = prices[1].cycles | {name: 40 * verdicts[1].layer(name).cycles}
    prices[1] = Priced(wrong, sum(wrong.values()), prices[1].sram_kb)
    fidelity_text.show_worst("cost", networks, verdicts, prices, 3, 2)
    printed = capsys.readouterr().out
    tables = [part.splitlines() for part in printed.split("┡")[1:]]
    first = [next(line for line in lines[1:] if line.startswith("│")) for lines in tables]
    assert first[0].split("│")[1].strip() == "1"
    assert [cell.strip() for cell in first[1].split("│")[1:4]] == ["1", name, "+3900.0"]
    assert "MAPE" in printed


def test_every_face_has_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    own = {
        "mape_percent": 1.25, "mape_interval": (1.0, 1.5), "tau": 0.98, "tau_interval": (0.97, 0.99),
        "layers": {"dense": (3, 4.5, 5.5)}, "edits": {"edits": 4, "spearman": 0.91},
        "edits_by_kind": {"2:4": {"edits": 1}}, "ablations": {"Sparsity": {"mean_effect": 1.09}},
    }  # fmt: skip
    baselines = {f"{n}_{k}": 0.5 for n in ("macs_only", "regression") for k in ("mape_percent", "tau")}
    other = own | {"mape_percent": 3.75, "ablations": {}}
    fidelity_text.show("chip", {"baselines": baselines, "faces": {"plan": own, "cost": other}})
    printed = capsys.readouterr().out
    for text in ("chip", "1.25 (1.000 .. 1.500)", "3.75", "4.50, 5.50", "mean_effect 1.09", "spearman 0.91"):
        assert text in printed
