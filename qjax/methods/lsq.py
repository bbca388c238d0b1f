"""LSQ: learned step size quantization.

Esser, McKinstry, Bablani, Appuswamy, Modha. arXiv 1902.08153, ICLR 2020. No official code.

    v_int = round(clip(v / s, -Q_N, Q_P)),   v_hat = s v_int                            (Eq. 1, 2)
    dv_hat/dv = 1 for -Q_N < v/s < Q_P, else 0                                             (Eq. 5)
    dv_hat/ds = round(v/s) - v/s inside, -Q_N at or below, Q_P at or above                 (Eq. 3)
    gradient of s times g = 1 / sqrt(N Q_P)                                       (section 2.2)

Weights: Q_N = 2^(b-1), Q_P = 2^(b-1) - 1. Activations: Q_N = 0, Q_P = 2^b - 1. The first step is
2 mean|v| / sqrt(Q_P).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qjax.core.codes import Term, decode_terms
from qjax.core.grid import check_bits, signed_range, top_code, traced_bits, uniform_codes
from qjax.core.quantizer import Kind, Numbers, Quantizer, Role, check_hashable

SMALLEST_STEP = 1e-8
"""The step is floored here, outside the gradient: Eq. 1 divides by it."""


def _term(v: Float[Array, "*shape"], s: Float[Array, ""], low: Array, high: Array) -> Term:
    step = jax.lax.optimization_barrier(jnp.maximum(s, SMALLEST_STEP))
    return Term(uniform_codes(v, step, 0.0, low, high), step, 0.0, low, high)


@jax.custom_vjp
def _lsq(
    v: Float[Array, "*shape"],
    s: Float[Array, ""],
    low: Float[Array, ""],
    high: Float[Array, ""],
    g: Float[Array, ""],
) -> Float[Array, "*shape"]:
    del g
    return decode_terms((_term(v, s, low, high),))


def _forward(v, s, low, high, g):
    return _lsq(v, s, low, high, g), (v, s, low, high, g)


def _backward(saved, cotangent):
    v, s, low, high, g = saved
    ratio = v / jnp.maximum(s, SMALLEST_STEP)
    inside = (ratio > low) & (ratio < high)
    slope = jnp.where(inside, jnp.round(ratio) - ratio, jnp.clip(ratio, low, high))
    d_s = g * jnp.sum(cotangent * slope, dtype=jnp.float32)
    zero = jnp.zeros_like(low)
    return jnp.where(inside, cotangent, 0), d_s.astype(s.dtype), zero, zero, jnp.zeros_like(g)


_lsq.defvjp(_forward, _backward)


@dataclasses.dataclass(frozen=True)
class Lsq(Quantizer):
    """LSQ weights or activations: a uniform grid whose step is learned.

    Forward Eq. 1 and 2, backward Eq. 3 and 5 with the gradient scale g; one step for the tensor.

    Attributes:
        bits: b, 2 to 8 signed, 1 to 8 unsigned, traced.
        signed: True for weights (codes -2^(b-1)..2^(b-1)-1), False for activations behind a ReLU
            (codes 0..2^b-1).

    Differences from the paper: the step is floored at 1e-8 outside the gradient. N of an
    activation counts the features of the layer, as the paper says, not the batch.

    Example:
        >>> q = Lsq(bits=2, signed=False)
        >>> p = q.init(jnp.array([0.5, 1.5]), Role("activation", 2)) | {"step": jnp.float32(1.0)}
        >>> q(p, jnp.array([0.25, 1.75, 9.0])).tolist()
        [0.0, 2.0, 3.0]
        >>> jax.grad(lambda x: q(p, x).sum())(jnp.array([0.25, 1.75, 9.0])).tolist()
        [1.0, 1.0, 0.0]
        >>> slope = jax.grad(lambda s: q(p | {"step": s}, jnp.array([1.75, 9.0])).sum())
        >>> round(float(slope(p["step"])), 4)
        1.3268
    """

    bits: int | None = 4
    signed: bool = True

    reference: ClassVar[str] = "esser2020lsq"
    roles: ClassVar[tuple[str, ...]] = ("weight", "activation")
    kinds: ClassVar[Mapping[str, Kind]] = {
        "step": "learned",
        "bits": "traced",
        "features": "traced",
    }

    def __post_init__(self) -> None:
        check_bits("Lsq", self.bits, low=2 if self.signed else 1)
        check_hashable(self)

    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """The paper's first step from the sample, and N."""
        bits = traced_bits(self.bits)
        _, high = self._range(bits)
        # A sample of zeros (a dead layer) would give no step at all.
        mean = jnp.maximum(jnp.mean(jnp.abs(x)), 1e-6)
        return {
            "step": 2 * mean / jnp.sqrt(high),
            "bits": bits,
            "features": jnp.asarray(role.features, jnp.int32),
        }

    def codes(self, p: Numbers, x: Float[Array, "*shape"]) -> tuple[Term, ...]:
        """Codes -Q_N..Q_P with scale s."""
        return (_term(x, p["step"], *self._range(p["bits"])),)

    def __call__(self, p: Numbers, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The simulated tensor, shape of `x`."""
        low, high = self._range(p["bits"])
        g = 1 / jnp.sqrt(p["features"].astype(jnp.float32) * high)
        return _lsq(x, p["step"], low, high, g)

    def _range(self, bits: Array) -> tuple[Array, Array]:
        if self.signed:
            return signed_range(bits, narrow=False)
        return jnp.zeros(()), top_code(bits)
