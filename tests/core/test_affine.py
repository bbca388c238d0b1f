"""`Affine` refuses what cannot be computed, and says what could."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.core.oracle import affine

BYTES = (-128, 127)


def test_numbers_are_private_read_only_copies() -> None:
    scale = np.array([0.5, 0.25])
    numbers = affine([scale], 0.0, [BYTES])
    scale[0] = 7
    assert np.asarray(numbers.scales[0]).tolist() == [0.5, 0.25]
    with pytest.raises(ValueError, match="read-only"):
        numbers.scales[0][0] = 7  # pyright: ignore[reportIndexIssue]


def test_span_and_reach() -> None:
    numbers = affine([[0.5, -2.0], 3.0], 0.0, [(-4, 3), (0, 5)])
    assert numbers.reach == (4, 5)
    assert numbers.span.tolist() == [17.0, 23.0]
    assert numbers.channels == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 0.0, []), r"one entry per term and at least one, got 0, 0 and 0"),
        (([0.5], 0.0, [BYTES, BYTES]), r"one entry per term and at least one, got 1, 2 and 1"),
        (([[0.5, 1.0]], [0.0] * 3, [BYTES]), r"agree on the number of channels, got \[2, 3\]"),
        (([np.nan], 0.0, [BYTES]), r"Affine.scales\[0\] must be finite and of shape .* nan"),
        (([[[0.5]]], 0.0, [BYTES]), r"Affine.scales\[0\] must be finite and of shape \(\) or"),
        (([0.5], np.inf, [BYTES]), r"Affine.offset must be finite .* inf"),
        (([0.5], 0.0, [(0, 2**31)]), r"bounds\[0\] must be .* inside int32, got \(0, 2147483648\)"),
        (([0.5], 0.0, [(3, 2)]), r"bounds\[0\] must be .* got \(3, 2\)"),
        (([0.5], 0.0, [BYTES], 5, 4), r"-2\*\*29 <= low <= high .*, got low=5, high=4"),
        (([0.5], 0.0, [BYTES], 0, 2**30), r"got low=0, high=1073741824"),
        (([1e300], 0.0, [BYTES]), r"below 2\*\*48 output steps, got 1.28e\+302 from scales up to"),
    ],
)
def test_what_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        affine(*arguments)


def test_terms_are_checked() -> None:
    numbers = affine([[0.5, 0.5]], 0.0, [BYTES])
    assert numbers.int32([jnp.zeros((3, 2), jnp.int8)])[0].dtype == jnp.int32
    with pytest.raises(ValueError, match="terms: expected 1, one per scale, got 2"):
        numbers.int32([jnp.zeros((3, 2), jnp.int32)] * 2)
    with pytest.raises(ValueError, match=r"2 channels on the last axis, got shape \(2, 3\)"):
        numbers.int32([jnp.zeros((2, 3), jnp.int32)])
    with pytest.raises(ValueError, match=r"2 channels on the last axis, got shape \(\)"):
        numbers.int32([jnp.int32(0)])
