"""Published figures: read as printed, converted once, and refused where a cell makes no sense."""

from pathlib import Path

import pytest

from qjax.results.expected import COLUMNS, Match, Range, read_expected
from qjax.results.markdown import published_cell

ROW = {
    "paper": "Some paper",
    "table": "Table 1",
    "method": "PACT",
    "dataset": "CIFAR-10",
    "network": "ResNet-20",
    "w_bits": "4",
    "a_bits": "4",
    "g_bits": "32",
    "e_bits": "32",
    "metric": "top1_acc",
    "value": "91.3",
    "fp_baseline": "91.6",
    "source": "Some paper Table 1",
    "verified": "yes",
    "match_method": "",
    "match_data": "",
    "match_model": "",
    "match_recipe": "",
}


def write(path: Path, **changes: str) -> Path:
    """One row under the header."""
    cells = ROW | changes
    path.write_text(f"{','.join(COLUMNS)}\n{','.join(cells[name] for name in COLUMNS)}\n")
    return path


@pytest.mark.parametrize(
    ("metric", "value", "accuracy", "shown"),
    [
        ("top1_acc", "91.30", Range(91.3, 91.3, 0.005), "91.30"),
        ("top-1 %", "40", Range(40.0, 40.0, 0.5), "40"),
        ("test_err", "6.78", Range(93.22, 93.22, 0.005), "93.22 (test_err 6.78)"),
        ("val_err", "9.4", Range(90.6, 90.6, 0.05), "90.6 (val_err 9.4)"),
        ("test_err", "3.0-3.1", Range(96.9, 97.0, 0.05), "96.9 to 97 (test_err 3.0-3.1)"),
        ("top-1 (fraction)", "0.707", Range(70.7, 70.7, 0.05), "70.7 (top-1 (fraction) 0.707)"),
        ("top5_err", "28.5", None, "top5_err 28.5"),
        ("AP", "28.6", None, "AP 28.6"),
    ],
)
def test_metrics_become_top_1_percent(
    tmp_path: Path, metric: str, value: str, accuracy: Range | None, shown: str
) -> None:
    (row,) = read_expected(write(tmp_path / "expected.csv", metric=metric, value=value))
    if accuracy is None:
        assert row.accuracy is None
    else:
        assert row.accuracy is not None
        assert (row.accuracy.low, row.accuracy.high) == (accuracy.low, accuracy.high)
        assert row.accuracy.rounding == pytest.approx(accuracy.rounding)
    assert published_cell(row) == shown


def test_a_match_names_our_runs(tmp_path: Path) -> None:
    matched = {"match_method": "pact", "match_data": "cifar10", "match_model": "resnet20"}
    (row,) = read_expected(write(tmp_path / "expected.csv", **matched))
    assert row.match == Match("pact", "cifar10", "resnet20", None)
    (row,) = read_expected(write(tmp_path / "expected.csv"))
    assert row.match is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"w_bits": "0"}, r"line 2, w_bits: must be a whole number from 1 to 32, got '0'"),
        ({"a_bits": "four"}, r"line 2, a_bits: .*got 'four'"),
        ({"metric": "accuracy"}, r"line 2, metric: must be one of .*got 'accuracy'"),
        ({"value": "about 90"}, r"line 2, value: must be a number .*got 'about 90'"),
        ({"fp_baseline": "?"}, r"line 2, fp_baseline: must be a number"),
        ({"verified": "maybe"}, r"line 2, verified: must be yes or no, got 'maybe'"),
        ({"match_data": "cifar10"}, r"line 2: fill match_method, match_data and match_model"),
        ({"source": "a, b"}, r"line 2: must have 18 cells; quote"),
        (
            {"metric": "AP", "match_method": "a", "match_data": "b", "match_model": "c"},
            r"line 2: AP cannot be matched",
        ),
    ],
)
def test_a_wrong_cell_is_named(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_expected(write(tmp_path / "expected.csv", **changes))


def test_the_columns_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "expected.csv"
    path.write_text("paper,table\n")
    with pytest.raises(ValueError, match=r"expected\.csv: the columns must be paper, table, "):
        read_expected(path)
