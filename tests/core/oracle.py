"""What the arithmetic tests compare with: rationals, golden vectors, and a look into programs."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from qjax.core.requantize import Affine, Policy

VECTORS = Path(__file__).parents[1] / "vectors"


def golden(key: str) -> dict:
    """One entry of the golden vectors, wherever in the file it stands."""
    with open(VECTORS / "golden_deployment.json", encoding="utf-8") as file:
        sections = json.load(file)
    return next(part[key] for part in sections.values() if isinstance(part, dict) and key in part)


def affine(
    scales: Sequence[ArrayLike],
    offset: ArrayLike,
    bounds: Sequence[tuple[int, int]],
    low: int = -128,
    high: int = 127,
    **zeros: Any,
) -> Affine:
    """An `Affine` from plain numbers and lists."""
    arrays = tuple(np.asarray(scale, np.float64) for scale in scales)
    return Affine(arrays, np.asarray(offset, np.float64), tuple(bounds), low, high, **zeros)


def channel(values: ArrayLike, index: int) -> Fraction:
    """A host constant of one channel, exactly."""
    return Fraction(np.asarray(values).reshape(-1)[index if np.ndim(values) else 0].item())


def exact_values(terms: list[np.ndarray], numbers: Affine) -> list[list[Fraction]]:
    """sum_i scales[i] * term_i + offset of (n, c) terms, with the float64 numbers as they are."""
    return [
        [
            sum(
                (channel(s, j) * int(t[i, j]) for s, t in zip(numbers.scales, terms, strict=True)),
                start=channel(numbers.offset, j),
            )
            for j in range(terms[0].shape[1])
        ]
        for i in range(terms[0].shape[0])
    ]


def code(value: Fraction, numbers: Affine) -> int:
    """Half to even before the zero point is added (Python's round of a Fraction), then clamped."""
    rounded = round(value - numbers.zero_point) + numbers.zero_point
    return min(max(rounded, numbers.low), numbers.high)


def distance(value: Fraction) -> Fraction:
    """How far a value is from the nearest rounding boundary."""
    return (
        abs(value - Fraction(1, 2) - math.floor(value)) if value.denominator > 1 else Fraction(1, 2)
    )


def run(policy: Policy, terms: list[np.ndarray], numbers: Affine) -> np.ndarray:
    """The policy's codes, compiled."""
    return np.asarray(jax.jit(lambda *t: policy(t, numbers))(*map(jnp.asarray, terms)))


def dtypes(function: Callable, *arguments: object) -> set[np.dtype]:
    """Every dtype in the traced program: sub-programs, literals and constants included."""
    traced = jax.make_jaxpr(function)(*arguments)
    found = {np.dtype(np.asarray(constant).dtype) for constant in traced.consts}
    return found | set(_dtypes(traced.jaxpr))


def _dtypes(jaxpr) -> Iterator[np.dtype]:
    atoms = [*jaxpr.invars, *jaxpr.constvars, *jaxpr.outvars]
    for equation in jaxpr.eqns:
        atoms += [*equation.invars, *equation.outvars]
        for parameter in jax.tree.leaves(
            equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr")
        ):
            if hasattr(parameter, "jaxpr"):
                yield from (np.dtype(constant.dtype) for constant in parameter.consts)
                parameter = parameter.jaxpr
            if hasattr(parameter, "eqns"):
                yield from _dtypes(parameter)
    yield from (np.dtype(atom.aval.dtype) for atom in atoms)
