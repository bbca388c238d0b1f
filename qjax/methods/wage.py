"""WAGE: training and inference with integers in deep neural networks. Here its weights and
activations; `wage_training.py` and `wage_update.py` hold what only training needs.

Wu, Li, Chen, Shi. ICLR 2018, arXiv 1802.04680. Released code: boluoweifenda/WAGE ("the code").

    sigma(k)  = 2^(1-k),   Q(x, k) = clip(sigma round(x / sigma), -1 + sigma, 1 - sigma)     (3.1)
    Shift(x)  = 2^round(log2 x)                                                              (3.1)
    alpha     = max(Shift(L_min / limit), 1),   L_min = 1.5 sigma(k_W)                       (3.3)
    weights      w_q = Q(w, k_W),               backward dw = g, the clip skipped            (3.3)
    activations  a_q = Q(a / alpha, k_A),       backward da = g where not clipped            (3.3)

The step is 2^(1-k): summaries that print 2^(k-1) give its reciprocal, the multiplier of the code.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from qjax.core.codes import Term, decode_terms
from qjax.core.gradients import clip_straight_through, straight_through
from qjax.core.grid import check_bits, signed_range, traced_bits, uniform_codes
from qjax.core.quantizer import Kind, Numbers, Quantizer, Role, check_hashable

LIMITS = {"code": 3.0, "paper": 6.0}
"""n of the limit sqrt(n / fan_in): the code calls its initialiser with half the paper's factor."""


def _term(x: Float[Array, "*shape"], bits: Array) -> Term:
    low, high = signed_range(bits, narrow=True)
    sigma = 1 / (high + 1)
    return Term(uniform_codes(x, sigma, 0.0, low, high), sigma, 0.0, low, high)


@dataclasses.dataclass(frozen=True)
class WageWeight(Quantizer):
    """WAGE weights: codes -(2^(k-1) - 1)..2^(k-1) - 1 of step sigma(k) / alpha; k = 2 is ternary.

    Forward Q(w, k) / alpha with the layer's constant power of two alpha, which keeps activations
    near one without batch normalization. Backward `dw = g`, wherever w lies.

    Attributes:
        bits: k_W, 2 to 8, traced.
        limit: "code" for alpha from sqrt(3 / fan_in), which the published figures were made with;
            "paper" for sqrt(6 / fan_in), as printed. Fan-in is the product of all axes but the
            last.

    Differences from the paper: alpha divides the weights, as in the code; in the paper it divides
    the sums. Forward they are equal, and Shift takes the power of two out of errors and gradients
    again. Without quantized updates (`wage_update.py`) the learning rate would feel it.

    Example:
        >>> import jax
        >>> q = WageWeight(bits=2)
        >>> w = jnp.array([[-1.0], [0.2], [0.6]])
        >>> p = q.init(w, Role("weight", 3))
        >>> q(p, w).ravel().tolist()
        [-0.5, 0.0, 0.5]
        >>> jax.grad(lambda w: q(p, w).sum())(w).ravel().tolist()
        [1.0, 1.0, 1.0]
    """

    bits: int | None = 2
    limit: str = "code"

    reference: ClassVar[str] = "wu2018wage"
    roles: ClassVar[tuple[str, ...]] = ("weight",)
    kinds: ClassVar[Mapping[str, Kind]] = {"bits": "traced", "alpha": "traced"}
    not_idempotent: ClassVar[str] = "alpha divides the weights, and would divide again"

    def __post_init__(self) -> None:
        check_bits("WageWeight", self.bits, low=2)
        check_hashable(self)
        if self.limit not in LIMITS:
            raise ValueError(f"WageWeight.limit must be one of {[*LIMITS]}, got {self.limit!r}")

    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """The bit width, and alpha from the fan-in."""
        del role
        bits = traced_bits(self.bits)
        assert self.bits is not None
        limit = math.sqrt(LIMITS[self.limit] / math.prod(x.shape[:-1]))
        least = 1.5 * 2.0 ** (1 - self.bits)
        alpha = max(2.0 ** round(math.log2(least / limit)), 1.0)
        return {"bits": bits, "alpha": jnp.asarray(alpha, jnp.float32)}

    def codes(self, p: Numbers, x: Float[Array, "*shape"]) -> tuple[Term, ...]:
        """One term whose scale is a power of two."""
        term = _term(x, p["bits"])
        return (term._replace(scale=term.scale / p["alpha"]),)

    def __call__(self, p: Numbers, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The simulated weight, shape of `x`."""
        return straight_through(x, decode_terms(self.codes(p, x)))


@dataclasses.dataclass(frozen=True)
class WageActivation(Quantizer):
    """WAGE activations, the image among them: codes -(2^(k-1) - 1)..2^(k-1) - 1 of step sigma(k).

    Forward Q(a, k); backward 1 for |a| <= 1 - sigma, else 0: a saturated activation blocks errors.
    A ReLU stands before it (half of the codes stay unused then, as in the paper).

    Attributes:
        bits: k_A, 2 to 8, traced.

    Differences from the paper: alpha is in the weights (see `WageWeight`).

    Example:
        >>> import jax
        >>> q = WageActivation(bits=2)
        >>> p = q.init(jnp.zeros(1), Role("activation", 1))
        >>> q(p, jnp.array([-0.3, 0.2, 0.9])).tolist()
        [-0.5, 0.0, 0.5]
        >>> jax.grad(lambda x: q(p, x).sum())(jnp.array([-0.3, 0.5, 0.9])).tolist()
        [1.0, 1.0, 0.0]
    """

    bits: int | None = 8

    reference: ClassVar[str] = "wu2018wage"
    roles: ClassVar[tuple[str, ...]] = ("activation",)
    kinds: ClassVar[Mapping[str, Kind]] = {"bits": "traced"}

    def __post_init__(self) -> None:
        check_bits("WageActivation", self.bits, low=2)
        check_hashable(self)

    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """The bit width only: the range is fixed."""
        del x, role
        return {"bits": traced_bits(self.bits)}

    def codes(self, p: Numbers, x: Float[Array, "*shape"]) -> tuple[Term, ...]:
        """One term of scale sigma."""
        return (_term(x, p["bits"]),)

    def __call__(self, p: Numbers, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The simulated activation, shape of `x`."""
        (term,) = self.codes(p, x)
        inside = clip_straight_through(x, term.scale * term.low, term.scale * term.high)
        return straight_through(inside, decode_terms((term,)))
