"""Means, spreads and paired intervals, against figures worked out by hand."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qjax.results.aggregate import Summary, group, paired_difference, summarize
from qjax.results.collect import tidy
from qjax.results.schema import RunRecord

Make = Callable[..., RunRecord]

PERCENT = st.floats(0, 100)


def test_runs_that_differ_in_seed_only_are_one_group(make_record: Make) -> None:
    records = [make_record(seed=s, simulated=0.9 + 0.01 * s) for s in (2, 0, 1)]
    records.append(make_record(seed=0, simulated=0.5, epochs=20))
    first, second = group(records)
    assert [run.seed for run in first.runs] == [0, 1, 2]
    found = first.summary("simulated")
    assert found is not None and found.std is not None
    assert (found.mean, found.std, found.n) == (pytest.approx(91), pytest.approx(1), 3)
    assert second.schedule == "ends_float, 20 epochs"


def test_a_schedule_says_what_is_not_usual(make_record: Make) -> None:
    usual = {"bn": "separate", "procedure": "scratch"}
    unusual = {"bn": "folded_frozen", "procedure": "finetune"}
    # Which says neither.
    older = make_record(seed=0, simulated=0.5)
    for words, said in ((usual, ""), (unusual, ", procedure finetune, bn folded_frozen")):
        (found,) = group([older, make_record(seed=1, simulated=0.5, **words)])
        assert found.schedule == f"ends_float, 10 epochs{said}"


def test_one_run_has_no_spread() -> None:
    assert summarize([42.0]) == Summary(42.0, None, 1)


def test_a_form_that_was_not_run_has_no_summary(make_record: Make) -> None:
    (found,) = group([make_record(float=0.9, w_bits=32, a_bits=32)])
    assert found.summary("integer") is None
    assert found.headline() == Summary(90.0, None, 1)


def test_a_network_without_an_integer_layer_has_no_integer_accuracy(make_record: Make) -> None:
    integer = {
        "float_free": True,
        "float_layers": ["conv1"],
        "weight_bytes": 1000,
        "accumulator_bits": {},
        "policy": "q31_even",
    }
    records = [make_record(simulated=0.9, integer=0.9)]
    changed = dataclasses.replace(records[0], integer=integer, group_hash="floats", seed=1)
    some, none = group([*records, changed])
    assert some.summary("integer") == Summary(90.0, None, 1)
    assert none.summary("integer") is None and none.summary("simulated") is not None
    row = tidy([changed])[0]
    assert row["integer"] is None and row["predictions_agree"] is None


def test_a_seed_twice_in_a_group_is_an_error(make_record: Make) -> None:
    records = [make_record(simulated=0.9, config_hash=name) for name in ("a", "b")]
    (found,) = group(records)
    with pytest.raises(ValueError, match="seed: two runs of the group of a"):
        found.summary("simulated")


def test_the_paired_interval_is_student_t() -> None:
    # Differences 1, 2, 3: mean 2, std 1; t(0.975, 2 degrees) = 4.302653, half width t / sqrt(3).
    found = paired_difference({0: 11.0, 1: 12.0, 2: 13.0, 9: 0.0}, {0: 10.0, 1: 10.0, 2: 10.0})
    assert found is not None
    assert (found.mean, found.n) == (pytest.approx(2.0), 3)
    assert found.low == pytest.approx(2 - 2.484138, abs=1e-6)
    assert found.high == pytest.approx(2 + 2.484138, abs=1e-6)
    assert not found.is_clear


def test_pairing_sees_what_the_spread_of_seeds_hides() -> None:
    # Seeds differ by 10 points, the methods by 1: only pairs can tell.
    found = paired_difference({0: 51.0, 1: 61.1, 2: 71.0}, {0: 50.0, 1: 60.0, 2: 70.0})
    assert found is not None and found.is_clear


def test_a_single_pair_has_no_interval() -> None:
    found = paired_difference({0: 2.0}, {0: 1.0})
    assert found is not None
    assert (found.mean, found.low, found.high, found.is_clear) == (1.0, None, None, False)


def test_without_a_common_seed_there_is_no_difference() -> None:
    assert paired_difference({0: 2.0}, {1: 1.0}) is None


def test_confidence_is_checked() -> None:
    with pytest.raises(ValueError, match="confidence must be between 0 and 1, got 95"):
        paired_difference({0: 2.0}, {0: 1.0}, confidence=95)


@given(st.lists(PERCENT, min_size=2, max_size=6))
def test_mean_and_spread_are_numpys(values: list[float]) -> None:
    found = summarize(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1), abs=1e-6)


@given(st.dictionaries(st.integers(0, 5), st.tuples(PERCENT, PERCENT), min_size=2))
def test_swapping_the_methods_turns_the_interval_round(
    values: dict[int, tuple[float, float]],
) -> None:
    ours, theirs = ({seed: pair[i] for seed, pair in values.items()} for i in (0, 1))
    there, back = paired_difference(ours, theirs), paired_difference(theirs, ours)
    assert there is not None and back is not None
    assert there.low is not None and back.high is not None
    assert there.mean == pytest.approx(-back.mean, abs=1e-9)
    assert there.low == pytest.approx(-back.high, abs=1e-9)
