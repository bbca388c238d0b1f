"""Every operator that rounds: the float64 value to the nearest code, and no float under way."""

import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core.requantize import POLICIES
from qjax.program.program import Program
from qjax.program.run import run, runner
from tests.core.oracle import dtypes
from tests.program.operator_cases import (
    CASES,
    ONE_TERM,
    decoded,
    inputs_of,
    reals_of,
    table_program,
)

INTEGER = [name for name in POLICIES if not name.startswith("f32")]
DTYPES = ("int8", "uint8", "int16")
UINT8_AND_INT16 = ("conv, dilation", "int16")


# Weights of uint8 stand beside 8-bit activations only.
TYPED = [(name, dtype) for name in CASES for dtype in DTYPES if (name, dtype) != UINT8_AND_INT16]


def takes(policy: str, name: str) -> bool:
    """Whether a policy can round an operator's sums: of one term, or at a power of two."""
    if policy == "thresholds":
        return name in ONE_TERM
    return not policy.startswith("shift") or name not in ("leaky relu", "mean")


def check(program: Program, values: dict[str, np.ndarray], real: np.ndarray) -> None:
    """A code differs from the rounded value only within 1e-3 of a boundary, and seldom."""
    found = np.asarray(runner(program)(values)["y"], np.int64)
    output = program["y"]
    low, high = output.range
    steps = real / output.units.step
    expected = np.clip(np.rint(steps) + output.units.zero, low, high)
    wrong = found != expected
    assert np.all(np.abs(steps - np.floor(steps) - 0.5)[wrong] <= 1e-3)
    assert np.mean(wrong) <= 1e-4
    inside = (expected > low) & (expected < high)
    assert np.mean(inside) > 0.5 and len(np.unique(expected)) > 5


@pytest.mark.parametrize(("name", "dtype"), TYPED)
def test_an_operator_rounds_its_real_value(name: str, dtype: str):
    case = CASES[name]
    program = case.program(dtype, "q31_even")
    values = inputs_of(program)
    check(program, values, reals_of(case, program, values))


@pytest.mark.parametrize(
    ("policy", "name"), [(p, name) for p in INTEGER for name in CASES if takes(p, name)]
)
def test_integer_policies_leave_no_float(policy: str, name: str):
    powers = policy.startswith("shift")
    for dtype in ("int8", "uint8"):
        program = CASES[name].program(dtype, policy, powers)
        values = {key: jnp.asarray(value) for key, value in inputs_of(program).items()}
        found = dtypes(lambda values: run(program, values), values)  # noqa: B023
        assert {kind.kind for kind in found} <= {"i", "u", "b"}, found


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("function", ["logistic", "tanh"])
def test_tables_round_the_function(function: str, dtype: str):
    program = table_program(dtype, function)
    values = inputs_of(program)
    x = decoded(program["x"], values["x"].astype(np.float64))
    check(program, values, 1 / (1 + np.exp(-x)) if function == "logistic" else np.tanh(x))
    found = dtypes(lambda values: run(program, values), {"x": jnp.asarray(values["x"])})
    assert {kind.kind for kind in found} <= {"i", "u", "b"}
