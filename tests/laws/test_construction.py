"""A quantizer is a value: equal by content, hashable, and refused at construction when wrong."""

import dataclasses
import re
from collections.abc import Iterator
from typing import get_args

import jaxtyping
import numpy as np
import pytest

from qjax.core.quantizer import Kind
from tests.laws.discovery import CASES, FAMILIES, WIDTHS, Case, every, widths

WRONG = (0, -1, 9, 64, 2.5, "4", True)
"""Bit widths that no 8-bit method takes."""


@pytest.fixture(autouse=True)
def as_users_run() -> Iterator[None]:
    """Without the type checker of the tests, which would refuse wrong types before the class."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def fields(case: Case) -> list[str]:
    """Names of the hyper-parameters."""
    return [field.name for field in dataclasses.fields(case.quantizer)]  # pyright: ignore


@every()
def test_equal_specifications_are_one_value(case: Case):
    again = dataclasses.replace(case.quantizer)  # pyright: ignore[reportArgumentType]
    assert again is not case.quantizer
    assert again == case.quantizer and hash(again) == hash(case.quantizer)
    assert case.bound == again.stripped() and hash(case.bound) == hash(again.stripped())
    assert case.bound.stripped() == case.bound


@every()
def test_different_specifications_differ(case: Case):
    others = [c.quantizer for c in CASES if c.kind == case.kind and c is not case]
    assert case.quantizer not in others


@every()
def test_numbers_are_named_and_classified(case: Case):
    p = case.numbers(case.sample())
    assert set(p) == set(case.quantizer.kinds)
    assert set(case.quantizer.kinds.values()) <= set(get_args(Kind))
    assert case.quantizer.reference


@every(families=True)
@pytest.mark.parametrize("value", [[4], np.array([4.0])], ids=["list", "array"])
def test_unhashable_fields_are_refused(case: Case, value: object):
    name = type(case.quantizer).__name__
    for field in fields(case):
        with pytest.raises((TypeError, ValueError), match=rf"\b{name}\b"):
            dataclasses.replace(case.quantizer, **{field: value})  # pyright: ignore


@every(families=True, where=lambda case: case.bits > 0)
@pytest.mark.parametrize("bits", WRONG, ids=repr)
def test_wrong_bits_are_refused_by_name_value_and_range(case: Case, bits: object):
    name = type(case.quantizer).__name__
    with pytest.raises(ValueError, match=rf"{name}\.bits .*{re.escape(repr(bits))}") as caught:
        dataclasses.replace(case.quantizer, bits=bits)  # pyright: ignore[reportArgumentType]
    allowed = [member.bits for member in widths(case)]
    for end in (min(allowed), max(allowed)):
        assert re.search(rf"\b{end}\b", str(caught.value)), f"{end} is allowed and not named"


@every(families=True, where=lambda case: case.bits > 0)
def test_widths_in_range_that_a_method_refuses_are_named_too(case: Case):
    allowed = {member.bits for member in widths(case)}
    for bits in set(WIDTHS) - allowed:
        with pytest.raises(ValueError, match=rf"bits .*got {bits}"):
            dataclasses.replace(case.quantizer, bits=bits)  # pyright: ignore


@every(families=True)
def test_misspelt_fields_are_refused(case: Case):
    with pytest.raises(TypeError, match="no_such_field"):
        type(case.quantizer)(no_such_field=1)  # pyright: ignore[reportCallIssue]


def test_every_folder_of_quantizers_is_covered():
    assert {case.kind for case in FAMILIES} == {"weight", "activation"}
    for kind in ("weight", "activation"):
        assert {case.bits for case in CASES if case.kind == kind} >= {2, 4, 8}
