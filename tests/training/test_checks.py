"""Checks of configuration numbers: one Python type out; messages name field, value and range."""

import math

import numpy as np
import pytest

from qjax.training import checks


def test_number_returns_a_float_and_knows_open_and_closed_ends():
    assert type(checks.number("A.b", 1, "[0, 1]")) is float
    assert type(checks.number("A.b", np.float32(0.5), "[0, 1]")) is float
    assert checks.number("A.b", 0, "[0, 1)") == 0
    for value, interval in (
        (0, "(0, 1]"),
        (1, "[0, 1)"),
        (math.inf, "[0, inf)"),
        (math.nan, "[0, 1]"),
    ):
        with pytest.raises(ValueError, match=r"A\.b must be a finite number in .*, got"):
            checks.number("A.b", value, interval)


@pytest.mark.parametrize("value", ["1", None, True, [1.0], 1j])
def test_number_refuses_what_is_not_a_real_number(value):
    with pytest.raises(TypeError, match=r"A\.b must be a number in \[0, 1\], got"):
        checks.number("A.b", value, "[0, 1]")


def test_numbers_returns_a_tuple_and_names_the_element():
    assert checks.numbers("A.b", [1, 2.5], "(0, inf)") == (1.0, 2.5)
    with pytest.raises(ValueError, match=r"A\.b\[1\] .*\(0, inf\), got -2"):
        checks.numbers("A.b", [1, -2], "(0, inf)")
    for value in (3, "12", None):
        with pytest.raises(TypeError, match=r"A\.b must be a list of numbers in \(0, inf\), got"):
            checks.numbers("A.b", value, "(0, inf)")


def test_whole_takes_integers_only():
    assert type(checks.whole("n", np.int64(3), least=1)) is int
    with pytest.raises(ValueError, match="n must be a whole number of at least 1, got 0"):
        checks.whole("n", 0, least=1)
    for value in (1.0, True, "1"):
        with pytest.raises(TypeError, match="n must be a whole number of at least 1, got"):
            checks.whole("n", value, least=1)


def test_boolean_takes_bools_only():
    assert checks.boolean("A.b", False) is False
    for value in (0, "false", None):
        with pytest.raises(TypeError, match=r"A\.b must be true or false, got"):
            checks.boolean("A.b", value)
