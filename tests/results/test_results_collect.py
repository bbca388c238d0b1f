"""Collecting: every whole record, no broken one, in an order that the file system has no say in."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qjax.results.collect import collect, tidy
from qjax.results.schema import RunRecord

Save = Callable[..., Path]


def test_all_records_below_the_roots_are_found(save: Save, tmp_path: Path) -> None:
    save("runs/a", seed=1, simulated=0.9)
    save("multirun/x/0", seed=0, simulated=0.8)
    found = collect([tmp_path / "runs", tmp_path / "multirun", tmp_path / "no such folder"])
    assert [record.seed for record in found.records] == [0, 1]
    assert found.problems == ()
    assert found.folders[found.records[0].config_hash] == tmp_path / "multirun/x/0"


def test_overlapping_roots_count_a_run_once(save: Save, tmp_path: Path) -> None:
    save("runs/a", simulated=0.9)
    found = collect([tmp_path, tmp_path / "runs"])
    assert len(found.records) == 1
    assert found.problems == ()


def test_a_broken_record_is_left_out_by_name(save: Save, tmp_path: Path) -> None:
    save("good", simulated=0.9)
    (save("half", simulated=0.9) / "result.json").write_text('{"schema": 1,')
    save("wrong", simulated=90)
    found = collect([tmp_path])
    assert len(found.records) == 1
    half, wrong = found.problems
    assert f"{Path('half/result.json')}: not whole JSON" in half
    assert "wrong/result.json: accuracy.simulated must be a fraction" in wrong


@pytest.mark.parametrize("later", ["a", "b"])
def test_of_two_records_of_one_run_the_later_counts(save: Save, tmp_path: Path, later: str) -> None:
    for folder in ("a", "b"):
        year = "2027" if folder == later else "2026"
        save(folder, simulated=0.9, finished=f"{year}-01-01T00:00:00+00:00")
    found = collect([tmp_path])
    assert [record.finished[:4] for record in found.records] == ["2027"]
    assert found.folders[found.records[0].config_hash].name == later
    assert "recorded twice" in found.problems[0]


def test_a_copy_of_a_record_is_no_problem(save: Save, tmp_path: Path) -> None:
    save("runs/a", simulated=0.9)
    save("records/a", simulated=0.9)
    found = collect([tmp_path])
    assert (len(found.records), found.problems) == (1, ())


def test_tidy_rows_are_flat_and_in_percent(make_record: Callable[..., RunRecord]) -> None:
    row = tidy([make_record(simulated=0.5, integer=0.25, g_bits=8)])[0]
    assert (row["simulated"], row["integer"], row["float"]) == (50.0, 25.0, None)
    assert (row["g_bits"], row["weight_bytes"], row["method"]) == (8, 1000, "pact")
    assert (row["bn"], row["procedure"]) == (None, None)
    json.dumps(row)


def test_results_need_no_jax() -> None:
    code = (
        "import sys, qjax.table, qjax.results.figures; "
        "sys.exit(any(m.split('.')[0] in ('jax', 'jaxlib', 'flax') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
