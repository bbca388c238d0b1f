"""WAGE: training and inference with integers in deep neural networks. Here what only
training needs beside the update (`wage_update.py`): initial weights, loss and errors.

Wu, Li, Chen, Shi. ICLR 2018, arXiv 1802.04680. Released code: boluoweifenda/WAGE.

    sigma(k) = 2^(1-k),   Q(x, k) = clip(sigma round(x / sigma), -1 + sigma, 1 - sigma)      (3.1)
    Shift(x) = 2^round(log2 x)                                                               (3.1)
    start    W ~ U(-L, L),   L = max(limit, 1.5 sigma(k_W))                                  (3.2)
    loss     = 1/2 sum (y - o)^2, over classes and batch, y one-hot in {0, 1}                  (4)
    e_q      = Q(e / Shift(max|e|), k_E)                                                     (3.3)

An error is the gradient of the loss with respect to an activation. The marker stands between ReLU
and activation quantizer and on the logits: forward the identity, backward the quantizer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from qjax.core.codes import Term, decode_terms
from qjax.core.grid import check_bits, check_number, signed_range, traced_bits, uniform_codes
from qjax.core.powers import nearest_power
from qjax.core.quantizer import Kind, Numbers, Quantizer, Role, check_hashable


def _grid(x: Float[Array, "*shape"], bits: Int[Array, ""]) -> Term:
    """Q(x, k)."""
    low, high = signed_range(bits, narrow=True)
    sigma = 1 / (high + 1)
    return Term(uniform_codes(x, sigma, 0.0, low, high), sigma, 0.0, low, high)


def _term(e: Float[Array, "*shape"], bits: Int[Array, ""]) -> Term:
    return _grid(e / nearest_power(jnp.max(jnp.abs(e))), bits)


@jax.custom_vjp
def _marker(x: Float[Array, "*shape"], bits: Int[Array, ""]) -> Float[Array, "*shape"]:
    del bits
    return x


_marker.defvjp(lambda x, bits: (x, bits), lambda bits, e: (decode_terms((_term(e, bits),)), None))


@dataclasses.dataclass(frozen=True)
class WageStart:
    """Initial weights: uniform on (-L, L), rounded to the grid of k_W as in the code, so that they
    start on the finer grid of the updates too.

    Attributes:
        bits: k_W, 2 to 8.
        factor: n of limit = sqrt(n / fan_in): 3 as in the code, 6 as in the paper.

    Differences from the paper: the rounding, of which the paper says nothing.
    """

    bits: int = 2
    factor: float = 3.0

    def __post_init__(self) -> None:
        check_bits("WageStart", self.bits, low=2)
        check_number("WageStart", "factor", self.factor, 1e-3, 1e3)

    def __call__(self, model: nnx.Module, key: PRNGKeyArray) -> None:
        """Draws every kernel of the model anew, in place."""
        kernels = [vars(node).get("kernel") for _, node in nnx.iter_modules(model)]
        kernels = [kernel for kernel in kernels if isinstance(kernel, nnx.Param)]
        for kernel, own in zip(kernels, jax.random.split(key, len(kernels)), strict=True):
            limit = math.sqrt(self.factor / math.prod(kernel.shape[:-1]))
            reach = max(limit, 1.5 * 2.0 ** (1 - self.bits))
            drawn = jax.random.uniform(own, kernel.shape, minval=-reach, maxval=reach)
            kernel[...] = decode_terms((_grid(drawn, jnp.int32(self.bits)),))


@dataclasses.dataclass(frozen=True)
class SumOfSquares:
    """Half the squared distance to the one-hot target, summed over classes and batch.

    Example:
        >>> logits, targets = jnp.array([[0.5, 0.75]]), jnp.array([1])
        >>> float(SumOfSquares()(logits, targets))
        0.15625
        >>> jax.grad(SumOfSquares())(logits, targets).tolist()
        [[0.5, -0.25]]
    """

    def __call__(self, logits: Float[Array, "n k"], targets: Int[Array, " n"]) -> Float[Array, ""]:
        """The sum; its scale is lost in the first Shift, its gradient `o - y` is what counts."""
        wanted = jax.nn.one_hot(targets, logits.shape[-1], dtype=jnp.float32)
        return 0.5 * jnp.sum(jnp.square(wanted - logits.astype(jnp.float32)))


@dataclasses.dataclass(frozen=True)
class WageError(Quantizer):
    """WAGE errors: codes -(2^(k-1) - 1)..2^(k-1) - 1 of step sigma(k), after scaling by Shift.

    Forward the identity. Backward `Q(e / Shift(max|e|), k)`, the maximum over the whole tensor,
    batch included: direction and relative size of an error go on, its magnitude is thrown away.

    Attributes:
        bits: k_E, 2 to 8, traced.

    Differences from the paper: none known (its ImageNet rows with 12 bits are out of range here).

    Example:
        >>> q = WageError(bits=4)
        >>> p = q.init(jnp.zeros(3), Role("error", 3))
        >>> q(p, jnp.array([0.1, 0.7, 3.0])).tolist() == jnp.array([0.1, 0.7, 3.0]).tolist()
        True
        >>> direction = jnp.array([0.013, -0.002, 0.0042])
        >>> jax.grad(lambda x: jnp.sum(q(p, x) * direction))(jnp.ones(3)).tolist()
        [0.875, -0.125, 0.25]
    """

    bits: int | None = 8

    reference: ClassVar[str] = "wu2018wage"
    roles: ClassVar[tuple[str, ...]] = ("error",)
    kinds: ClassVar[Mapping[str, Kind]] = {"bits": "traced"}

    def __post_init__(self) -> None:
        check_bits("WageError", self.bits, low=2)
        check_hashable(self)

    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """The bit width only."""
        del x, role
        return {"bits": traced_bits(self.bits)}

    def codes(self, p: Numbers, x: Float[Array, "*shape"]) -> tuple[Term, ...]:
        """One term for an error, scale sigma."""
        return (_term(x, p["bits"]),)

    def __call__(self, p: Numbers, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """`x` itself; what flows back through it is quantized."""
        return _marker(x, p["bits"])
