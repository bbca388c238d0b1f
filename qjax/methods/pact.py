"""PACT: parameterized clipping activation for quantized neural networks.

Choi, Wang, Venkataramani, Chuang, Srinivasan, Gopalakrishnan. arXiv 1805.06085 (2018).

    y   = 0.5 (|x| - |x - alpha| + alpha) = clip(x, 0, alpha)                               (Eq. 1)
    y_q = round(y (2^k - 1) / alpha) alpha / (2^k - 1)                                      (Eq. 2)
    dy_q / dalpha = 0 for x < alpha, 1 for x >= alpha                                       (Eq. 3)

alpha is one learned number per activation layer and replaces the ReLU; the loss holds its L2
penalty. The paper's weights are DoReFa's (`methods/dorefa.py`); SAWB (`methods/sawb.py`) is the
same group's later choice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qjax.core.codes import Term, decode_terms
from qjax.core.grid import check_bits, check_number, top_code, traced_bits, uniform_codes
from qjax.core.quantizer import Kind, Numbers, Quantizer, Role, check_hashable

SMALLEST_ALPHA = 1e-3
"""alpha is floored here, outside the gradient: on a dead layer its decay would take it to zero and
Eq. 2 divides by it.
"""


def _floor(alpha: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.maximum(alpha, SMALLEST_ALPHA)


def _term(x: Float[Array, "*shape"], alpha: Float[Array, ""], n: Float[Array, ""]) -> Term:
    step = jax.lax.optimization_barrier(_floor(alpha) / n)
    return Term(uniform_codes(x, step, 0.0, 0.0, n), step, 0.0, 0.0, n)


@jax.custom_vjp
def _pact(
    x: Float[Array, "*shape"], alpha: Float[Array, ""], n: Float[Array, ""]
) -> Float[Array, "*shape"]:
    return decode_terms((_term(x, alpha, n),))


def _forward(x, alpha, n):
    return _pact(x, alpha, n), (x, alpha, n)


def _backward(saved, g):
    x, alpha, n = saved
    a = _floor(alpha)
    # Eq. 3: the rounding residual inside the range gives alpha nothing (LSQ's rule would).
    d_x = jnp.where((x >= 0) & (x < a), g, 0)
    d_alpha = jnp.sum(jnp.where(x >= a, g, 0), dtype=jnp.float32).astype(alpha.dtype)
    return d_x, d_alpha, jnp.zeros_like(n)


_pact.defvjp(_forward, _backward)


@dataclasses.dataclass(frozen=True)
class Pact(Quantizer):
    """PACT activations: 2^k levels 0, alpha/n, .., alpha with n = 2^k - 1 and a learned clip alpha.

    Forward Eq. 2. Backward `dx = g` for 0 <= x < alpha, else 0; `dalpha = sum of g over x >= alpha`
    (Eq. 3).

    Attributes:
        bits: k, 1 to 8, traced.
        alpha_init: first clip in real units of the activation, large beside typical values.
        decay: lambda of the penalty `decay/2 alpha^2` in the loss, traced. The paper finds a value
            equal to the weight decay near-optimal; it shrinks a clip that no activation reaches.

    Differences from the paper: alpha is floored at 1e-3 outside the gradient (see
    `SMALLEST_ALPHA`). The paper gives 10 as an example of a first clip; 6 here, as MQBench. First
    and last layers are the recipe's business.

    Example:
        >>> q = Pact(bits=2, alpha_init=2.5)
        >>> p = q.init(jnp.zeros(1), Role("activation", 1))
        >>> x = jnp.array([-1.0, 0.7, 2.5, 3.1])
        >>> print(q(p, x).round(4))
        [0.     0.8333 2.5    2.5   ]
        >>> jax.grad(lambda x: q(p, x).sum())(x).tolist()
        [0.0, 1.0, 0.0, 0.0]
        >>> float(jax.grad(lambda a: q({**p, "alpha": a}, x).sum())(p["alpha"]))
        2.0
    """

    bits: int | None = 4
    alpha_init: float = 6.0
    decay: float | None = 2e-4

    reference: ClassVar[str] = "choi2018pact"
    roles: ClassVar[tuple[str, ...]] = ("activation",)
    kinds: ClassVar[Mapping[str, Kind]] = {"alpha": "learned", "bits": "traced", "decay": "traced"}
    rectifies: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_bits("Pact", self.bits)
        check_number("Pact", "alpha_init", self.alpha_init, SMALLEST_ALPHA, 1e6)
        check_number("Pact", "decay", self.decay, 0.0, 1e3)
        check_hashable(self)

    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """alpha at `alpha_init`, whatever the sample: the paper starts it large and lets it
        learn.
        """
        del x, role
        return {
            "alpha": jnp.asarray(self.alpha_init, jnp.float32),
            "bits": traced_bits(self.bits),
            "decay": jnp.asarray(self.decay, jnp.float32),
        }

    def codes(self, p: Numbers, x: Float[Array, "*shape"]) -> tuple[Term, ...]:
        """Codes 0..n with scale alpha/n."""
        return (_term(x, p["alpha"], top_code(p["bits"])),)

    def __call__(self, p: Numbers, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The simulated activation, shape of `x`."""
        return _pact(x, p["alpha"], top_code(p["bits"]))

    def penalty(self, p: Numbers) -> Float[Array, ""]:
        """decay/2 alpha^2, so that its gradient is decay * alpha."""
        return 0.5 * p["decay"] * jnp.square(p["alpha"])
