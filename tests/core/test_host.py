"""Host constants hash and compare by value, and cannot change."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core.host import HostArray


def test_equal_content_is_equal_whatever_it_came_from():
    same = [
        HostArray([0.5, 0.25]),
        HostArray((0.5, 0.25)),
        HostArray(np.array([0.5, 0.25], np.float32)),
    ]
    assert len(set(same)) == 1 and all(value == same[0] for value in same)
    assert HostArray(same[0]) == same[0]
    assert HostArray(jnp.asarray([0.5, 0.25])) == same[0]


@pytest.mark.parametrize(
    "other", [HostArray([0.5]), HostArray([[0.5, 0.25]]), HostArray([0.5, 0.26]), 0.5, None]
)
def test_different_content_differs(other: object):
    assert HostArray([0.5, 0.25]) != other


def test_it_holds_float64_to_the_last_bit():
    value = 1 / 3
    assert HostArray(value).value.dtype == np.float64
    assert float(HostArray(value).value) == value
    assert HostArray(value) != HostArray(np.nextafter(value, 1))


def test_it_is_a_copy_and_cannot_change():
    source = np.array([1.0, 2.0])
    host = HostArray(source)
    source[0] = 9.0
    assert host.value[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        host.value[0] = 9.0
    with pytest.raises(AttributeError, match="immutable"):
        host.value = source  # pyright: ignore[reportAttributeAccessIssue]


def test_copies_are_the_same_object():
    host = HostArray([1.0])
    assert copy.copy(host) is host and copy.deepcopy(host) is host


def test_it_is_static_under_jit():
    traces = []

    def run(host: HostArray, x: jax.Array) -> jax.Array:
        traces.append(host)
        return x * jnp.float32(host.value)

    compiled = jax.jit(run, static_argnums=0)
    for _ in range(2):
        assert float(compiled(HostArray(0.5), jnp.float32(3))) == 1.5
    assert len(traces) == 1


def test_reports_stay_short():
    assert repr(HostArray(0.5)) == "0.5"
    assert repr(HostArray(np.arange(1000.0))) == "HostArray(shape=(1000,), 0..999)"
