"""Pages of open questions, from made-up records."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from qjax.results.aggregate import Group, group
from qjax.results.one_recipe import OneRecipePage
from qjax.results.page import load_page, write_page
from qjax.results.question import Question, QuestionPage
from qjax.results.schema import RunRecord

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
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


PLANNED = TABLE + "    planned: {tanh: [ends, body], clip: [ends, body, all], scaled: [all]}\n"


def test_what_was_planned_has_its_row_and_column_without_a_run(make_record: Make, tmp_path: Path):
    (tmp_path / "table.yaml").write_text(PLANNED)
    write_page(load_page(tmp_path), "ask", made(make_record), tmp_path / "out")
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert "| method | recipe ends | recipe body | recipe all |" in lines
    assert "| none | 90.00 ± 0.00 (n=2) | 90.00 ± 0.00 (n=2) | 90.00 ± 0.00 (n=2) |" in lines
    assert "| clip | no run | 90.00 ± 0.00 (n=2) | no run |" in lines
    assert "| tanh | 75.00 ± 7.07 (n=2) | 88.00 ± 0.00 (n=2) | – |" in lines
    assert lines.count("| scaled | – | – | no run |") == 2  # accuracies and differences


def test_a_reference_in_one_of_its_planned_columns_stays_there(make_record: Make):
    table = Question("By width", {}, "method", "bits", "wage", planned={"wage": ["4/4", "8/8"]})
    lines = table.text(group([make_record(method="wage", simulated=0.9)])).splitlines()
    assert "| wage | 90.00 (n=1) | no run |" in lines


def test_planned_columns_are_a_list_for_each_row():
    with pytest.raises(ValueError, match="planned must be a list of columns for each row"):
        Question("Q", {}, "method", "bits", "none", planned={"pact": 4})


@pytest.mark.parametrize("folder", sorted(EXPERIMENTS.glob("*/jobs*.txt")), ids=str)
def test_every_method_of_the_jobs_is_planned(folder: Path):
    page = load_page(folder.parent)
    if isinstance(page, QuestionPage):
        rows = {row for table in page.tables for row in (*table.planned, table.reference)}
    elif isinstance(page, OneRecipePage):
        rows = {*page.methods, "none"}
    else:
        pytest.skip("a paper's page plans no runs")
    assert set(re.findall(r"\bmethod=(\w+)", folder.read_text())) <= rows


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
