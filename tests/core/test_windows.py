"""Padding rules and the rearrangements that leave a convolution's sums alone."""

import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qjax.core import windows

SIZES = st.integers(1, 40)


@given(SIZES, st.integers(1, 7), st.integers(1, 4), st.integers(1, 3))
def test_same_keeps_ceil_of_size_over_stride_with_the_least_padding(size, kernel, stride, step):
    low, high = windows.same_padding(size, kernel, stride, step)
    assert 0 <= high - low <= 1
    assert windows.output_size(size, kernel, stride, (low, high), step) == -(-size // stride)
    if low + high:
        fewer = (low + high - 1) + size - (kernel - 1) * step - 1
        assert fewer // stride + 1 < -(-size // stride)


def test_explicit_accepts_every_spelling() -> None:
    size, kernel = (9, 12), (3, 2)
    assert windows.explicit("SAME", size, kernel, (2, 2)) == ((1, 1), (0, 0))
    assert windows.explicit("SAME", size, kernel, dilation=(2, 3)) == ((2, 2), (1, 2))
    assert windows.explicit("VALID", size, kernel) == ((0, 0), (0, 0))
    assert windows.explicit(2, size, kernel) == ((2, 2), (2, 2))
    assert windows.explicit(((0, 1), (2, 3)), size, kernel) == ((0, 1), (2, 3))
    # As lists, the way a configuration file brings them.
    assert windows.explicit([[0, 1], [2, 3]], size, kernel) == ((0, 1), (2, 3))


@pytest.mark.parametrize("padding", ["same", -1, ((0, 1), (0, -1)), (1, 1)])
def test_explicit_names_what_it_got(padding) -> None:
    with pytest.raises(ValueError, match="padding must be 'SAME', 'VALID', a number"):
        windows.explicit(padding, (8, 8), (3, 3))


def test_window_larger_than_the_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"window of 5 \(kernel 3, dilation 2\) .* input of 4"):
        windows.output_size(4, 3, 1, (0, 0), 2)


def test_merged_groups_hold_every_weight_once() -> None:
    kernel = jnp.arange(1.0, 1 + 2 * 3 * 24).reshape(1, 2, 3, 24)
    merged = windows.merge_groups(kernel, groups=6, channels=8)
    assert [k.shape for k in merged] == [(1, 2, 6, 8)] * 3
    assert sum(float(k.sum()) for k in merged) == float(kernel.sum())
    assert float(merged[1][0, 1, 3, 4]) == float(kernel[0, 1, 0, 12])
    assert float(merged[1][0, 1, 3, 3]) == 0
