"""The protocol: what a method gets for writing `init`, `codes` and `__call__`."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from qjax.core.codes import Term, decode_terms
from qjax.core.grid import Grid
from qjax.core.quantizer import Kind, Numbers, Quantizer, Role, check_hashable

SAMPLE = jnp.asarray([-1.0, -0.3, 0.0, 0.4, 2.6])


@dataclasses.dataclass(frozen=True)
class Plain(Quantizer):
    """Codes low..high, one step for all: the least a method can be."""

    low: int = 0
    high: int = 3
    zero: float = 1.0
    step: float | None = 0.5
    tags: object = ()

    reference: ClassVar[str] = "test"
    roles: ClassVar[tuple[str, ...]] = ("weight", "activation")
    kinds: ClassVar[Mapping[str, Kind]] = {"step": "traced", "shift": "learned"}

    def init(self, x: Array, role: Role) -> dict[str, Array]:
        """The step."""
        del x, role
        return {"step": jnp.asarray(self.step, jnp.float32), "shift": jnp.zeros(())}

    def codes(self, p: Numbers, x: Array) -> tuple[Term, ...]:
        """One term."""
        codes = jnp.clip(jnp.round(x / p["step"]) + self.zero, self.low, self.high)
        return (Term(codes, p["step"], self.zero, self.low, self.high),)

    def __call__(self, p: Numbers, x: Array) -> Array:
        """The decoded codes."""
        return decode_terms(self.codes(p, x))


class WeightOnly(Plain):
    """The same, for weights alone."""

    roles: ClassVar[tuple[str, ...]] = ("weight",)


def numbers(quantizer: Quantizer) -> dict[str, Array]:
    """First numbers."""
    return quantizer.init(SAMPLE, Role("activation", 5))


def test_encode_stores_integers_and_host_constants():
    codes = Plain().encode(numbers(Plain()), SAMPLE)
    (term,) = codes.terms
    assert (term.ints.dtype, term.ints.tolist()) == (jnp.int8, [0, 0, 1, 2, 3])
    assert (float(term.scale.value), float(term.zero_point.value)) == (0.5, 1.0)
    assert (term.low, term.high) == (0, 3)
    np.testing.assert_array_equal(codes.decode(), [-0.5, -0.5, 0.0, 0.5, 1.0])


def test_encode_shifts_unsigned_bytes_with_their_zero_point():
    wide = Plain(high=255, zero=7.0)
    (term,) = wide.encode(numbers(wide), SAMPLE).terms
    assert term.ints.tolist() == [5 - 128, 6 - 128, 7 - 128, 8 - 128, 12 - 128]
    assert (float(term.zero_point.value), term.low, term.high) == (7.0 - 128, -128, 127)


def test_encode_refuses_codes_beyond_a_byte():
    wide = Plain(high=256)
    with pytest.raises(ValueError, match=r"\[0, 256\] does not fit an 8-bit container"):
        wide.encode(numbers(wide), SAMPLE)


def test_encode_takes_concrete_numbers_from_inside_no_trace():
    with pytest.raises(jax.errors.ConcretizationTypeError):
        jax.jit(lambda x: Plain().encode(numbers(Plain()), x))(SAMPLE)


def test_grid_speaks_of_the_codes_as_declared():
    assert Plain().grid(numbers(Plain())) == Grid(0.5, 1.0, 0, 3)
    wide = Plain(high=255, zero=7.0)
    assert wide.grid(numbers(wide)) == Grid(0.5, 7.0, 0, 255)


def test_weights_have_no_grid():
    with pytest.raises(ValueError, match=r"WeightOnly has no activation grid: it serves weight"):
        WeightOnly().grid(numbers(WeightOnly()))


def test_a_dead_step_is_named():
    dead = Plain(step=0.0)
    with pytest.raises(ValueError, match=r"Grid\.scale must be positive.*may be dead"):
        dead.grid(numbers(dead))


def test_stripped_moves_traced_fields_only():
    assert Plain(step=0.5).stripped() == Plain(step=0.25).stripped()
    stripped = Plain(high=7).stripped()
    assert (stripped.step, stripped.high) == (None, 7)


def test_statistics_and_penalty_are_optional():
    p = numbers(Plain())
    assert Plain().observe(p, SAMPLE) == {}
    assert float(Plain().penalty(p)) == 0.0


@pytest.mark.parametrize("field", [[1], {"a": 1}, np.zeros(2), jnp.zeros(2)], ids=type)
def test_unhashable_fields_are_named(field: object):
    with pytest.raises(TypeError, match=r"Plain holds a field that cannot be hashed"):
        check_hashable(Plain(tags=field))


def test_roles_are_values():
    assert Role("weight", 3) == Role("weight", 3)
    assert hash(Role("weight", 3)) != hash(Role("activation", 3))


def test_a_method_without_codes_cannot_be_built():
    class Half(Quantizer):
        pass

    with pytest.raises(TypeError, match="codes"):
        Half()  # pyright: ignore[reportAbstractUsage]
