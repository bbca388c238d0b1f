"""Ours beside the paper: which runs a row meets, and what is said of the distance."""

from collections.abc import Callable
from typing import Any

import pytest

from qjax.results.aggregate import Group, group
from qjax.results.compare import compare, float_reference, unmatched
from qjax.results.expected import Expected, Match, Range
from qjax.results.schema import RunRecord

Make = Callable[..., RunRecord]


PRINTED = Range(91.3, 91.3, 0.05)


def published(accuracy: Range = PRINTED, **changes: Any) -> Expected:
    """A row that PACT W4A4 on CIFAR-10, ResNet-20, compares with."""
    fields: dict[str, Any] = {
        "paper": "P",
        "table": "T",
        "method": "PACT",
        "dataset": "CIFAR-10",
        "network": "ResNet-20",
        "bits": (4, 4, 32, 32),
        "metric": "top1_acc",
        "printed": "91.3",
        "is_converted": False,
        "accuracy": accuracy,
        "baseline": None,
        "source": "T",
        "verified": True,
        "match": Match("pact", "cifar10", "resnet20", "ends_float"),
    }
    return Expected(**fields | changes)


def runs(make_record: Make, *accuracies: float, **changes: Any) -> list[Group]:
    """One group: a run for each accuracy (percent), seeds from 0."""
    pairs = enumerate(accuracies)
    return group([make_record(seed=s, simulated=a / 100, **changes) for s, a in pairs])


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ((91.2, 91.3, 91.4), "within the spread"),
        ((90.0, 91.0, 92.0), "within the spread"),
        ((90.4, 90.5, 90.6), "**off: -0.80**"),
        ((92.0, 92.1, 92.2), "**off: +0.80**"),
        # Both 91.26: nearer than the paper's own rounding, although the spread is zero.
        ((91.26, 91.26), "within the spread"),
        ((91.24, 91.24), "**off: -0.06**"),
        ((85.0,), "-6.30, one seed: no spread to judge by"),
    ],
)
def test_verdicts(make_record: Make, accuracies: tuple[float, ...], verdict: str) -> None:
    (row,) = compare([published()], runs(make_record, *accuracies))
    assert row.verdict == verdict
    assert row.is_off == verdict.startswith("**")


def test_a_printed_range_is_met_anywhere_inside(make_record: Make) -> None:
    row = published(Range(90.0, 91.0, 0.05))
    assert compare([row], runs(make_record, 90.6, 90.6))[0].difference == 0
    below = compare([row], runs(make_record, 89.0, 89.0))[0].difference
    assert below == pytest.approx(-1.0)


@pytest.mark.parametrize(
    "other",
    [
        {"method": "dorefa"},
        {"data": "mnist"},
        {"model": "resnet32"},
        {"recipe": "ends_8bit"},
        {"w_bits": 3},
        {"a_bits": 3},
        {"g_bits": 8},
    ],
)
def test_another_run_is_no_run_of_the_row(make_record: Make, other: dict[str, Any]) -> None:
    groups = runs(make_record, 91.3, **other)
    (row,) = compare([published()], groups)
    assert (row.group, row.verdict) == (None, "no run")
    assert unmatched(groups, [row]) == groups


def test_a_row_without_a_match_has_no_run(make_record: Make) -> None:
    (row,) = compare([published(match=None)], runs(make_record, 91.3))
    assert row.verdict == "no run"


def test_a_row_may_take_any_recipe(make_record: Make) -> None:
    row = published(match=Match("pact", "cifar10", "resnet20", None))
    assert compare([row], runs(make_record, 91.3, recipe="all"))[0].group is not None


def test_all_schedules_are_listed(make_record: Make) -> None:
    groups = runs(make_record, 88.0) + runs(make_record, 91.0, epochs=200)
    rows = compare([published(), published(bits=(2, 2, 32, 32))], groups)
    assert [row.group.first.epochs if row.group else None for row in rows] == [10, 200, None]
    assert unmatched(groups, rows) == []


def test_the_float_accuracy_is_of_the_like_float_run(make_record: Make) -> None:
    floats = {"w_bits": 32, "a_bits": 32, "method": "none"}
    groups = runs(make_record, 91.0)
    groups += runs(make_record, 92.0, **floats) + runs(make_record, 70.0, **floats, model="other")
    found = float_reference(groups[0], groups)
    assert found is not None and found.mean == pytest.approx(92.0)
    two = groups + runs(make_record, 93.0, **floats, recipe="all")
    assert float_reference(groups[0], two) is None


def test_a_float_phase_comes_first(make_record: Make) -> None:
    own = group([make_record(simulated=0.91, float=0.925)])
    found = float_reference(own[0], own + runs(make_record, 92.0, w_bits=32, a_bits=32))
    assert found is not None and found.mean == pytest.approx(92.5)
