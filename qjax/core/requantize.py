"""Requantization: integer accumulators to codes, by named policies.

A policy takes the integer terms and what to compute (`Affine`) and returns int32 codes,

    code = clip(round(sum_i scales[i] * term_i + offset), low, high).

| policy | rule | equals |
|---|---|---|
| `q31_even` | 31-bit multiplier, one rounding, half to even | the simulation: the default |
| `gemmlowp` | 31-bit multiplier, double rounding | TFLite reference kernels |
| `q31` | 31-bit multiplier, one rounding, half up | ruy, TFLite single-rounding builds |
| `f32_even` | float32 product, half to even, then zero point | onnxruntime, fbgemm, XNNPACK |
| `f32_zp_even` | float32 product plus zero point, half to even | OpenVINO, oneDNN |
| `shift` | rounding right shift, half to even | power-of-two targets |
| `shift_after_image` | `q31_even` for the image, `shift` for every accumulator | WAGE |
| `thresholds` | count of integer thresholds passed | the exact value, any monotone quantizer |

All but the two float32 ones leave no floating-point value in the traced program. Variants are
partial applications: `partial(shift, rounding=shift_half_up)` for a DPU's activations,
`partial(q31_even, multiply=multiply_by_halves)` under sharding.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import jax.numpy as jnp
from jaxtyping import Array, Int, Int32

from qjax.core.affine import Affine, Policy
from qjax.core.rescale import q31_even
from qjax.core.runtimes import f32_even, f32_zp_even, gemmlowp, q31
from qjax.core.shift_policy import shift
from qjax.core.thresholds import thresholds

__all__ = [
    "POLICIES",
    "WIDEST",
    "Affine",
    "Policy",
    "f32_even",
    "f32_zp_even",
    "gemmlowp",
    "name_of",
    "policy",
    "q31",
    "q31_even",
    "shift",
    "shift_after_image",
    "thresholds",
]


def shift_after_image(
    terms: Sequence[Int[Array, "*shape"]], affine: Affine
) -> Int32[Array, "*shape"]:
    """`shift` for accumulators; bytes that land on another grid, an image's, take `q31_even`.

    A pixel has 255 steps, and no shift makes 256 of them: x / 127.5 - 1 on steps of 2^-7 is one
    multiplication a pixel. Behind it a network with power-of-two scales only shifts.

    Raises:
        ValueError: an accumulator whose scale is no power of two, see `shift`.
    """
    if all(term.dtype == jnp.int8 for term in terms):
        return q31_even(terms, affine)
    return shift(terms, affine)


WIDEST: Mapping[Policy, int] = MappingProxyType(
    {gemmlowp: 127, q31: 127, f32_even: 64, f32_zp_even: 64}
)
"""Policies whose bias is a whole number of the accumulator's units: the magnitude up to which
weight codes are worth doubling, so that the unit is finer. 64 where CPUs without VNNI add pairs of
u8 x s8 products in 16 bits."""

POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        "q31_even": q31_even,
        "gemmlowp": gemmlowp,
        "q31": q31,
        "f32_even": f32_even,
        "f32_zp_even": f32_zp_even,
        "shift": shift,
        "shift_after_image": shift_after_image,
        "thresholds": thresholds,
    }
)


def policy(name: str) -> Policy:
    """The policy of that name.

    Raises:
        ValueError: for a name that is none, with those there are.

    Example:
        >>> policy("q31_even") is q31_even
        True
    """
    if name not in POLICIES:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}, got {name!r}")
    return POLICIES[name]


def name_of(known: Policy) -> str:
    """The name of a policy.

    Raises:
        ValueError: for one without a name, such as a `partial` of another.

    Example:
        >>> name_of(q31_even)
        'q31_even'
    """
    for name, one in POLICIES.items():
        if one is known:
            return name
    raise ValueError(f"policy {known} has no name; it must be one of {', '.join(POLICIES)}")
