"""Whole pages from fabricated records, byte for byte the same however the files lie."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qjax.results.aggregate import group
from qjax.results.collect import collect
from qjax.results.expected import COLUMNS
from qjax.results.one_recipe import OneRecipePage
from qjax.results.page import load_page, write_page
from qjax.results.schema import RunRecord

Make = Callable[..., RunRecord]
Save = Callable[..., Path]

PACT_ROW = (
    "PACT,PACT paper Table 1,PACT,CIFAR-10,ResNet-20,4,4,32,32,top1_acc,91.3,91.6,"
    "PACT paper Table 1,yes,pact,cifar10,resnet20,ends_float"
)
RECALLED_ROW = 'PACT,,PACT,ImageNet,"ResNet-50, a|b",4,4,32,32,top1_err,23.5,,someone,no,,,,'


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    """A paper's folder of two published rows."""
    folder = tmp_path / "experiments" / "pact"
    folder.mkdir(parents=True)
    (folder / "table.yaml").write_text("kind: paper\ntitle: PACT\nmethods: [pact]\n")
    (folder / "expected.csv").write_text(f"{','.join(COLUMNS)}\n{PACT_ROW}\n{RECALLED_ROW}\n")
    return folder


def sweep() -> list[dict[str, Any]]:
    """Two methods at three widths and three seeds, one more schedule, one float run."""
    runs = [
        {"method": method, "w_bits": bits, "a_bits": bits, "seed": seed}
        | {"simulated": 0.9 - loss / bits + 0.001 * seed * bits, "integer": 0.9 - loss / bits}
        for method, loss in (("pact", 0.1), ("minmax", 0.3))
        for bits in (2, 4, 8)
        for seed in (0, 1, 2)
    ]
    runs.append({"simulated": 0.5, "epochs": 1})
    runs.append({"float": 0.92, "method": "none", "w_bits": 32, "a_bits": 32})
    return runs


def tree_bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", ["paper", "one_recipe"])
def test_equal_records_give_equal_bytes(
    save: Save, experiments: Path, tmp_path: Path, kind: str
) -> None:
    page = load_page(experiments)
    if kind == "one_recipe":
        shared = {"data": "cifar10", "model": "resnet20", "epochs": 10}
        page = OneRecipePage("One", "minmax", ((2, 2), (4, 4), (8, 8)), (shared,))
    written = []
    for attempt in (0, 1):
        runs = random.Random(attempt).sample(sweep(), len(sweep()))
        for index, run in enumerate(runs):
            save(f"runs{attempt}/{index}", **run)
        groups = group(collect([tmp_path / f"runs{attempt}"]).records)
        write_page(page, "pact", groups, tmp_path / f"out{attempt}")
        written.append(tree_bytes(tmp_path / f"out{attempt}"))
    assert written[0] == written[1]
    assert sorted(written[0]) == [
        "figures/accuracy_over_bits.png",
        "figures/pareto_bit_operations.png",
        "figures/pareto_weight_bytes.png",
        "measured.csv",
        "table.md",
    ]


def test_a_paper_page_tells_all_rows(make_record: Make, experiments: Path, tmp_path: Path) -> None:
    groups = group(
        [
            *(make_record(seed=s, simulated=0.90, integer=0.899) for s in (0, 1)),
            make_record(simulated=0.75, data="mnist", model="lenet5"),
            make_record(float=0.92, method="none", w_bits=32, a_bits=32),
        ]
    )
    write_page(load_page(experiments), "pact", groups, tmp_path)
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert (
        "| PACT | CIFAR-10, ResNet-20 | 4/4 | 91.3 | 91.6 |  | 90.00 ± 0.00 (n=2) | "
        "89.90 ± 0.00 (n=2) | 92.00 (n=1) | ends_float, 10 epochs | **off: -1.30** |"
    ) in lines
    assert (
        "| PACT | ImageNet, ResNet-50, a\\|b | 4/4 | 76.5 (top1_err 23.5) | – | "
        "someone (*unverified*) | – | – | – | – | no run |"
    ) in lines
    assert ("| pact | mnist, lenet5 | 4/4 | ends_float, 10 epochs | 75.00 (n=1) | – | – |") in lines
    overview = "2 published rows: 1 with a run of ours, 1 of these off under every schedule; "
    assert f"{overview}1 unverified." in lines
    assert "![Accuracy over the bytes of the integer weights." in "\n".join(lines)


def test_measured_has_one_line_for_each_group(
    make_record: Make, experiments: Path, tmp_path: Path
) -> None:
    records = [make_record(seed=s, simulated=0.90 + s / 50, integer=0.9) for s in (0, 1)]
    write_page(load_page(experiments), "pact", group(records), tmp_path)
    header, line = (tmp_path / "measured.csv").read_text().splitlines()
    cells = dict(zip(header.split(","), line.split(","), strict=True))
    name = "pact-cifar10-resnet20-ends_float-4-4-10"
    assert cells["runs"] == f"{name}-0 {name}-1"
    assert (cells["seeds"], cells["n"], cells["mean"], cells["std"]) == (
        "0 1",
        "2",
        "91.0000",
        "1.4142",
    )
    assert (cells["integer_mean"], cells["float_mean"], cells["g_bits"]) == ("90.0000", "", "")
    assert (cells["hardware"], cells["commit"]) == ("cpu (Some CPU; 2 cores)", "0123abc")


def test_without_runs_the_page_says_so(experiments: Path, tmp_path: Path) -> None:
    text = (
        (experiments / "expected.csv").read_text().replace("yes,pact,cifar10,resnet20,", "no,,,,")
    )
    (experiments / "expected.csv").write_text(text.replace("no,,,,ends_float", "no,,,,"))
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "pareto_weight_bytes.png").write_bytes(b"of an earlier run")
    write_page(load_page(experiments), "pact", [], tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert text.count("no run |") == 2
    assert "No comparable verified figure exists" in text
    assert text.endswith("## Figures\n\nNo run to draw.\n")
    assert list((tmp_path / "figures").iterdir()) == []


def test_one_recipe_pairs_by_seed(make_record: Make) -> None:
    page = OneRecipePage("One", "minmax", ((2, 2), (4, 4)), ({"data": "d", "model": "m"},))
    shared = {"data": "d", "model": "m", "w_bits": 2, "a_bits": 2}
    records = [
        make_record(**shared, method=method, seed=s, simulated=base + s / 10, integer=base)
        for method, base in (("minmax", 0.5), ("pact", 0.6))
        for s in (0, 1, 2)
    ]
    records.append(make_record(data="d", model="m", method="none", float=0.9, w_bits=32, a_bits=32))
    text = page.text(group(records))
    assert "Float: 90.00 (n=1).\n" in text
    assert "| minmax | 60.00 ± 10.00 (n=3) | no run |\n| pact | 70.00 ± 10.00 (n=3) |" in text
    assert "| pact | **+10.00 [+10.00, +10.00]** | no run |" in text
    assert "Schedule: ends_float, 10 epochs.\nSeeds: 0, 1, 2.\n" in text
    assert "6 runs, 0.02 hours together." in text


def test_one_recipe_keeps_a_row_for_a_method_without_a_run(make_record: Make) -> None:
    setting = {"data": "cifar10", "model": "resnet20"}
    page = OneRecipePage("T", "pact", ((4, 4),), (setting,), methods=("lsq", "pact"))
    lines = page.text(group([make_record(simulated=0.9)])).splitlines()
    assert lines.count("| lsq | no run |") == 3


def test_one_recipe_warns_of_several(make_record: Make) -> None:
    page = OneRecipePage("One", "minmax", ((4, 4),), ({"data": "d", "model": "m"},))
    shared = {"data": "d", "model": "m", "simulated": 0.5}
    records = [make_record(**shared), make_record(**shared, method="lsq", epochs=20, seed=1)]
    text = page.text(group(records))
    assert "**Not one recipe**: the schedules differ" in text
    assert "**The seeds differ**" in text
    assert "| pact | no run of minmax |" in text


def test_one_recipe_refuses_two_configurations_in_a_cell(make_record: Make) -> None:
    settings = {"data": "cifar10", "model": "resnet20"}
    page = OneRecipePage("One", "minmax", ((4, 4),), (settings,))
    groups = group([make_record(simulated=0.5), make_record(simulated=0.6, epochs=20)])
    with pytest.raises(ValueError, match=r"pact 4/4 .*ends_float, 10 epochs.*20 epochs.*records="):
        page.text(groups)
    narrower = OneRecipePage("One", "minmax", ((4, 4),), (settings | {"epochs": 20},))
    assert "60.00 (n=1)" in narrower.text(groups)


def test_one_recipe_tells_procedures_apart(make_record: Make) -> None:
    settings = {"data": "cifar10", "model": "resnet20"}
    procedures = (("minmax", "finetune"), ("pact", "scratch"), ("pact", "finetune"))
    groups = group(
        [
            make_record(method=method, procedure=p, simulated=0.5, group_hash=f"{method} {p}")
            for method, p in procedures
        ]
    )
    page = OneRecipePage("One", "minmax", ((4, 4),), (settings,))
    assert "the schedules differ" in page.text(groups[:2])
    with pytest.raises(ValueError, match=r"procedure finetune.*; .*target, bn, procedure, epochs"):
        page.text(groups)
    narrower = OneRecipePage("One", "minmax", ((4, 4),), (settings | {"procedure": "finetune"},))
    assert "Schedule: ends_float, 10 epochs, procedure finetune." in narrower.text(groups)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "kind: poster\n",
            r"table\.yaml: kind must be paper, one_recipe or question, got 'poster'",
        ),
        ("", r"table\.yaml: kind must be .*got None"),
        ("kind: paper\ntitle: T\n", r"table\.yaml: the keys must be .*methods.*got"),
        (
            json.dumps(
                {"kind": "one_recipe", "title": "T", "reference": "minmax", "bits": [[4, 4]]}
                | {"settings": [{"data": "d", "modle": "m"}]}
            ),
            r"table\.yaml: settings: each must name data and model, .*got data, modle",
        ),
    ],
)
def test_wrong_settings_are_named(experiments: Path, text: str, message: str) -> None:
    (experiments / "table.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_page(experiments)
