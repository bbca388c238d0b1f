"""Pages of open questions, from made-up records."""

from collections.abc import Callable
from pathlib import Path

import pytest

from qjax.results.aggregate import Group, group
from qjax.results.page import load_page, write_page
from qjax.results.question import Question
from qjax.results.schema import RunRecord

Make = Callable[..., RunRecord]

TABLE = """\
kind: question
title: Which?
tables:
  - title: By place
    where: {experiment: ask, recipe: [body, ends, float]}
    rows: method
    columns: recipe
    reference: none
    order: [ends, body]
"""


def made(make_record: Make) -> list[Group]:
    """A float reference of one column and two methods in two places, one of them half run."""
    shared = {"experiment": "ask", "model": "lenet5"}
    runs = [make_record(**shared, method="none", recipe="float", float=0.9, seed=s) for s in (0, 1)]
    for seed in (0, 1):
        for recipe, accuracy in (("body", 0.88), ("ends", 0.7 + 0.1 * seed)):
            runs.append(
                make_record(**shared, method="tanh", recipe=recipe, simulated=accuracy, seed=seed)
            )
        runs.append(make_record(**shared, method="clip", recipe="body", simulated=0.9, seed=seed))
    runs.append(make_record(method="tanh", recipe="body", simulated=0.1, experiment="other"))
    return group(runs)


def test_a_question_is_a_table_with_differences_and_a_figure(make_record: Make, tmp_path: Path):
    (tmp_path / "table.yaml").write_text(TABLE)
    written = write_page(load_page(tmp_path), "ask", made(make_record), tmp_path / "out")
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert "| method | recipe ends | recipe body |" in lines
    assert "| none | 90.00 ± 0.00 (n=2) | 90.00 ± 0.00 (n=2) |" in lines
    assert "| tanh | 75.00 ± 7.07 (n=2) | 88.00 ± 0.00 (n=2) |" in lines
    assert "| clip | no run | 90.00 ± 0.00 (n=2) |" in lines
    assert "| tanh | -15.00 [-78.53, +48.53] | **-2.00 [-2.00, -2.00]** |" in lines
    assert (tmp_path / "out" / "figures" / "accuracy.png") in written
    assert len((tmp_path / "out" / "measured.csv").read_text().splitlines()) == 5


def test_without_runs_the_page_says_so(tmp_path: Path):
    (tmp_path / "table.yaml").write_text(TABLE)
    assert len(write_page(load_page(tmp_path), "ask", [], tmp_path / "out")) == 2
    text = (tmp_path / "out" / "table.md").read_text()
    assert "## By place\n\nNo run." in text and "No run to draw." in text


def test_two_configurations_in_one_cell_are_named(make_record: Make):
    runs = [make_record(simulated=0.9, epochs=e) for e in (1, 2)]
    table = Question("By width", {}, "method", "w_bits", "pact")
    with pytest.raises(ValueError, match="By width: pact at 4 has runs of several configurations"):
        table.cells(group(runs))


def test_procedures_make_rows_and_older_records_one_of_their_own(make_record: Make):
    runs = [make_record(simulated=0.9, group_hash="old")]
    runs += [make_record(simulated=0.9, procedure=p, group_hash=p) for p in ("ptq", "finetune")]
    table = Question("By procedure", {}, "procedure", "bits", "ptq")
    assert sorted(row for row, _ in table.cells(group(runs))) == ["finetune", "not recorded", "ptq"]


def test_only_fields_of_a_record_make_rows_and_columns():
    with pytest.raises(ValueError, match="rows and columns must be one of method"):
        Question("Q", {}, "method", "colour", "none")
