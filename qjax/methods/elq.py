"""ELQ: explicit loss-error-aware quantization for low-bit deep neural networks. Its incremental
partition is in `elq_partition.py`.

Zhou, Yao, Wang, Chen. CVPR 2018. No code, and no text of the formulas, could be found: what is
marked [r] is a reconstruction, so treat results as ELQ-like.

    levels    w_hat in alpha {-1, +1} or alpha {-1, 0, +1}, one alpha a layer
    objective a1 L_p + a2 E,   E = ||w - w_hat||^2,   L_p = |t|,   t = <dL/dw, w_hat - w>
              (first order of |L(w) - L(w_hat)|)
    alpha     the mean of |w| over the non-zero codes, of the codes with the least E
    partition G1 is quantized and held, G2 stays float and is retrained; G1 grows in steps
    gradient  G1: none.  G2: dL/dw - a1 sign(t) dL/dw + 2 a2 (w - w_hat) [r], t over G2 and the
              gradient in it held constant

alpha is fixed when the float model is quantized, so that held weights keep their values [r]; a1 and
a2 are not confirmed either. Activations stay float in the paper.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qjax.core.codes import Term, decode_terms
from qjax.core.gradients import sign
from qjax.core.grid import check_bits, check_number, traced_bits, uniform_codes
from qjax.core.quantizer import Kind, Numbers, Quantizer, Role, check_hashable


def objective(
    w: Float[Array, "*shape"],
    w_hat: Float[Array, "*shape"],
    gradient: Float[Array, "*shape"],
    loss_weight: Float[Array, ""] | float,
    error_weight: Float[Array, ""] | float,
) -> Float[Array, ""]:
    """a1 |<dL/dw, w_hat - w>| + a2 ||w - w_hat||^2, what quantizing w to w_hat costs a layer."""
    t = jnp.sum(gradient * (w_hat - w))
    return loss_weight * jnp.abs(t) + error_weight * jnp.sum(jnp.square(w - w_hat))


def best_scale(w: Float[Array, "..."], ternary: bool) -> Float[Array, ""]:
    """alpha of the least E: over the k largest |w|, E falls by (sum of them)^2 / k; binary: k = n.

    A tensor of zeros, which any alpha fits equally, gets 1.

    Example:
        >>> w = jnp.array([1.0, -0.5, 0.25, 0.0])
        >>> float(best_scale(w, ternary=True)), float(best_scale(w, ternary=False))
        (0.75, 0.4375)
    """
    size = jnp.sort(jnp.abs(w).ravel())[::-1]
    mean = jnp.cumsum(size) / jnp.arange(1, size.size + 1)
    gain = jnp.square(mean) * jnp.arange(1, size.size + 1)
    alpha = mean[jnp.argmax(gain)] if ternary else mean[-1]
    return jnp.where(alpha > 0, alpha, 1.0)


def _term(p: Numbers, w: Float[Array, "*shape"]) -> Term:
    """Held codes, elsewhere the nearest to w / alpha; at one bit 0 and 1 around a half."""
    binary = p["bits"] == 1
    nearest = jnp.where(binary, sign(w), uniform_codes(w, p["alpha"], 0.0, -1.0, 1.0))
    codes = jnp.where(p["held"], p["held_codes"], jnp.where(binary, (nearest + 1) / 2, nearest))
    scale = jnp.where(binary, 2 * p["alpha"], p["alpha"])
    return Term(codes, scale, jnp.where(binary, 0.5, 0.0), jnp.where(binary, 0.0, -1.0), 1.0)


@jax.custom_vjp
def _simulate(p: Numbers, w: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.where(p["held"] | p["whole"], decode_terms((_term(p, w),)), w)


def _backward(saved, g):
    p, w = saved
    free = jnp.where(p["held"], 0, g)
    w_hat = decode_terms((_term(p, w),))
    cost = jax.grad(objective)(w, w_hat, free, p["loss_weight"], p["error_weight"])
    return None, jnp.where(p["held"], 0, free + cost)


_simulate.defvjp(lambda p, w: (_simulate(p, w), (p, w)), _backward)


@dataclasses.dataclass(frozen=True)
class ElqWeight(Quantizer):
    """ELQ weights: binary or ternary, quantized part by part.

    Forward alpha times the held codes on G1 and w itself on G2; backward as in the module's table.
    Until a phase holds a first part (`elq_partition.py`), every weight is quantized at every step
    and takes the same gradient, straight through.

    Attributes:
        bits: 1 for binary, 2 for ternary, traced.
        loss_weight: a1, at least 0, traced. error_weight: a2, at least 0, traced.

    Differences from the paper: see [r] in the module; the straight-through form before the first
    part is ours.

    Example:
        >>> q = ElqWeight(bits=2, loss_weight=0.0, error_weight=0.5)
        >>> w = jnp.array([1.0, -0.5, 0.125, 0.0])
        >>> p = q.init(w, Role("weight", 4))
        >>> q(p, w).tolist()
        [0.75, -0.75, 0.0, 0.0]
        >>> jax.grad(lambda w: q(p, w).sum())(w).tolist()
        [1.25, 1.25, 1.125, 1.0]
    """

    bits: int | None = 2
    loss_weight: float | None = 0.1
    error_weight: float | None = 1e-2

    reference: ClassVar[str] = "zhou2018elq"
    roles: ClassVar[tuple[str, ...]] = ("weight",)
    kinds: ClassVar[Mapping[str, Kind]] = dict.fromkeys(
        ("bits", "loss_weight", "error_weight", "alpha", "held", "held_codes", "whole"), "traced"
    )

    def __post_init__(self) -> None:
        check_bits("ElqWeight", self.bits, 1, 2)
        check_number("ElqWeight", "loss_weight", self.loss_weight, 0.0, 1e6)
        check_number("ElqWeight", "error_weight", self.error_weight, 0.0, 1e6)
        check_hashable(self)

    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """alpha of the sample; nothing held, everything quantized."""
        del role
        return {
            "bits": traced_bits(self.bits),
            "loss_weight": jnp.asarray(self.loss_weight, jnp.float32),
            "error_weight": jnp.asarray(self.error_weight, jnp.float32),
            "alpha": best_scale(x, self.bits == 2),
            "held": jnp.zeros(x.shape, bool),
            "held_codes": jnp.zeros(x.shape, jnp.float32),
            "whole": jnp.asarray(True),
        }

    def codes(self, p: Numbers, x: Float[Array, "*shape"]) -> tuple[Term, ...]:
        """One term: codes -1, 0, 1 of scale alpha, or 0 and 1 of scale 2 alpha around a half."""
        return (_term(p, x),)

    def __call__(self, p: Numbers, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The simulated weight, shape of `x`; float on G2."""
        return _simulate(p, x)
