"""Published figures: a row of `expected.csv` each, as printed and as percent correct."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

COLUMNS = (
    "paper",
    "table",
    "method",
    "dataset",
    "network",
    "w_bits",
    "a_bits",
    "g_bits",
    "e_bits",
    "metric",
    "value",
    "fp_baseline",
    "source",
    "verified",
    "match_method",
    "match_data",
    "match_model",
    "match_recipe",
)

# Slope and offset that make a printed metric top-1 percent correct; other metrics stay as printed.
_TO_PERCENT = {
    "top1_acc": (1, 0),
    "top-1 %": (1, 0),
    "top-1 (fraction)": (100, 0),
    "top1_err": (-1, 100),
    "test_err": (-1, 100),
    "val_err": (-1, 100),
}
_OTHER_METRICS = {
    "top5_acc", "top5_err", "top-5 %", "AP", "AP50", "AP75", "APs", "APm", "APl",
}  # fmt: skip
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?")


@dataclass(frozen=True)
class Range:
    """A published number: low and high are equal unless a range was printed.

    `rounding` is half a unit of the last printed digit.
    """

    low: float
    high: float
    rounding: float


@dataclass(frozen=True)
class Match:
    """Which of our runs a published row compares with; `recipe` None takes any."""

    method: str
    data: str
    model: str
    recipe: str | None


@dataclass(frozen=True)
class Expected:
    """A published figure; `accuracy` and `baseline` are top-1 percent, None for other metrics.

    `is_converted` tells that the figure was printed in another form, as an error or a fraction.
    """

    paper: str
    table: str
    method: str
    dataset: str
    network: str
    bits: tuple[int, int, int, int]
    metric: str
    printed: str
    is_converted: bool
    accuracy: Range | None
    baseline: Range | None
    source: str
    verified: bool
    match: Match | None


def read_expected(path: Path) -> list[Expected]:
    """Reads and checks `expected.csv`.

    Raises:
        ValueError: a column is missing or unknown, or a cell is not allowed; the message names
            file, line and column.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(
                f"{path}: the columns must be {', '.join(COLUMNS)}; got {reader.fieldnames}"
            )
        return [_row(cells, f"{path}, line {reader.line_num}") for cells in reader]


def _row(cells: dict[str, str], where: str) -> Expected:
    if None in cells or None in cells.values():
        raise ValueError(f"{where}: must have {len(COLUMNS)} cells; quote those that hold a comma")
    w, a, g, e = (_bits(cells[name], f"{where}, {name}") for name in COLUMNS[5:9])
    metric = cells["metric"]
    if metric not in _TO_PERCENT and metric not in _OTHER_METRICS:
        known = ", ".join(sorted({*_TO_PERCENT, *_OTHER_METRICS}))
        raise ValueError(f"{where}, metric: must be one of {known}; got {metric!r}")
    if cells["verified"] not in ("yes", "no"):
        raise ValueError(f"{where}, verified: must be yes or no, got {cells['verified']!r}")
    accuracy = _percent(cells["value"], metric, f"{where}, value")
    match = _match(cells, where)
    if match is not None and accuracy is None:
        raise ValueError(
            f"{where}: {metric} cannot be matched to our top-1 accuracy; blank match_*"
        )
    baseline = cells["fp_baseline"]
    return Expected(
        paper=cells["paper"],
        table=cells["table"],
        method=cells["method"],
        dataset=cells["dataset"],
        network=cells["network"],
        bits=(w, a, g, e),
        metric=metric,
        printed=cells["value"],
        is_converted=_TO_PERCENT.get(metric) != (1, 0),
        accuracy=accuracy,
        baseline=_percent(baseline, metric, f"{where}, fp_baseline") if baseline else None,
        source=cells["source"],
        verified=cells["verified"] == "yes",
        match=match,
    )


def _bits(text: str, where: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 32:
        raise ValueError(f"{where}: must be a whole number from 1 to 32, got {text!r}")
    return int(text)


def _percent(text: str, metric: str, where: str) -> Range | None:
    """The printed number or range as percent correct; None for a metric that is not top-1."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise ValueError(f"{where}: must be a number such as 91.3 or 3.0-3.1, got {text!r}")
    if metric not in _TO_PERCENT:
        return None
    slope, offset = _TO_PERCENT[metric]
    ends = sorted(slope * float(end) + offset for end in (found[1], found[2] or found[1]))
    decimals = len(found[1].partition(".")[2])
    return Range(round(ends[0], 6), round(ends[1], 6), abs(slope) * 0.5 * 10.0**-decimals)


def _match(cells: dict[str, str], where: str) -> Match | None:
    method, data, model = (cells[f"match_{part}"] for part in ("method", "data", "model"))
    recipe = cells["match_recipe"]
    if not (method or data or model or recipe):
        return None
    if not (method and data and model):
        raise ValueError(
            f"{where}: fill match_method, match_data and match_model, or blank them all"
        )
    return Match(method, data, model, recipe or None)
