"""Power-of-two scales for any uniform quantizer: what hardware without multipliers asks for.

Jain, Gural, Wu, Dick, "Trained quantization thresholds for accurate and efficient fixed-point
inference of deep neural networks" (TQT), arXiv 1903.08066, MLSys 2020, section 3: the scale of a
trained threshold is rounded to a power of two, and its gradient goes straight through the rounding
in the logarithm. Here around another paper's quantizer q with scale s, zero point z, codes l..h:

    t   = 2^round(log2 s),   or 2^ceil(log2 s) as TQT
    y   = t (clip(round(x / t) + z, l, h) - z)
    r   = t / s, held constant:   dy/dx = q'(x / r),   dy/dp = r dq/dp (x / r)

The range grows or shrinks with its scale by r, between 1/sqrt(2) and sqrt(2) (ceil: 1 to 2).
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qjax.core.codes import Term, along_channels, decode_terms
from qjax.core.gradients import straight_through
from qjax.core.powers import nearest_power, power_above
from qjax.core.quantizer import Numbers, Quantizer, Role, check_hashable


@dataclasses.dataclass(frozen=True)
class PowerOfTwo(Quantizer):
    """Another quantizer, its scale rounded to a power of two.

    Forward and backward as above. A quantizer that rescales its weights (DoReFa), so that batch
    normalization must follow, keeps its codes, and only what they stand for changes by r.

    Attributes:
        of: any quantizer of one scale a tensor or channel: PACT, DoReFa, LSQ, min-max, SAWB, FQN;
            `NoQuantizer` stays what it is.
        up: ceil, so that nothing inside the range is clipped; otherwise the nearest power.

    Differences from the paper: TQT learns the threshold's logarithm; here `of` decides what is
    learned. Rounding to the nearest power is ours.

    Example:
        >>> from qjax.methods.pact import Pact
        >>> q = PowerOfTwo(Pact(bits=2, alpha_init=2.5))
        >>> p = q.init(jnp.zeros(1), Role("activation", 1))
        >>> x = jnp.array([-1.0, 0.7, 2.5, 3.1])
        >>> q(p, x).tolist()
        [0.0, 1.0, 2.0, 3.0]
        >>> jax.grad(lambda x: q(p, x).sum())(x).tolist()
        [0.0, 1.0, 1.0, 0.0]
    """

    of: Quantizer
    up: bool = False

    reference: ClassVar[str] = "jain2020tqt"

    def __post_init__(self) -> None:
        if hasattr(self.of, "linear") or self.of.stochastic:
            raise ValueError(
                f"PowerOfTwo.of: {type(self.of).__name__} draws noise or computes its layer's "
                "product, so its scale cannot be rounded alone; choose a target with free scales"
            )
        check_hashable(self)
        # What a layer asks of a quantizer's class is the inner one's answer.
        for name in ("roles", "kinds", "rectifies", "rescales"):
            object.__setattr__(self, name, getattr(self.of, name))
        moves = "a rounded range moves the range that is taken from it" * ("weight" in self.roles)
        object.__setattr__(self, "not_idempotent", self.of.not_idempotent or moves)
        object.__setattr__(self, "is_float", getattr(self.of, "is_float", False))

    @property
    def label(self) -> str:
        """Both names."""
        return f"PowerOfTwo({self.of.label})"

    @property
    def references(self) -> tuple[str, ...]:
        """Both papers."""
        return (self.reference, *self.of.references)

    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """The inner quantizer's numbers.

        Raises:
            ValueError: codes on the sample that are not those of one uniform grid.
        """
        p = self.of.init(x, role)
        first, *more = self.of.codes(p, x)
        label, single = self.of.label, any(x.ndim and n.shape == x.shape for n in p.values())
        if more or single or not (self.of.rescales or _is_uniform(first, x)):
            raise ValueError(
                f"PowerOfTwo.of must have one uniform grid a tensor or channel, {label} has "
                "none; choose pact, dorefa, lsq, minmax, sawb, fqn, or a target of free scales"
            )
        return p

    def observe(self, p: Numbers, x: Float[Array, "..."]) -> dict[str, Array]:
        """The inner quantizer's statistics."""
        return self.of.observe(p, x)

    def penalty(self, p: Numbers) -> Float[Array, ""]:
        """The inner quantizer's loss term."""
        return self.of.penalty(p)

    def stripped(self) -> Self:
        """With the inner quantizer stripped."""
        return dataclasses.replace(self, of=self.of.stripped())

    def codes(self, p: Numbers, x: Float[Array, "*shape"]) -> tuple[Term, ...]:
        """One term with the inner zero point and range, and a power of two for its scale."""
        (term,) = self.of.codes(p, x)
        scale = (power_above if self.up else nearest_power)(jnp.asarray(term.scale))
        if self.of.rescales:
            return (term._replace(scale=scale),)
        moved = term._replace(codes=_on_grid(x, term._replace(scale=scale)), scale=scale)
        # Where the scale is a power of two by itself (WAGE), the paper's own codes stand.
        same = along_channels(term.scale == scale, x.ndim)
        return (moved._replace(codes=jnp.where(same, term.codes, moved.codes)),)

    def __call__(self, p: Numbers, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The simulated tensor, shape of `x`."""
        (term,) = self.codes(p, x)
        ratio = term.scale / jax.lax.stop_gradient(self.of.codes(p, x)[0].scale)
        r = jax.lax.stop_gradient(along_channels(ratio, x.ndim))
        surrogate = self.of(p, x if self.of.rescales else x / r) * r
        return straight_through(surrogate, jax.lax.stop_gradient(decode_terms((term,))))


def _on_grid(x: Float[Array, "*shape"], term: Term) -> Float[Array, "*shape"]:
    """clip(round(x / scale) + zero point, low, high); round(x / scale + z) for half-integers z."""
    scale, zero = (along_channels(v, x.ndim) for v in (term.scale, term.zero_point))
    half = zero - jnp.floor(zero)
    whole = jnp.round(x / jax.lax.optimization_barrier(scale) + half)
    return jnp.clip(whole + (zero - half), term.low, term.high)


def _is_uniform(term: Term, x: Float[Array, "..."]) -> bool:
    """Whether the codes of a sample are those of their own grid, apart from values near a tie."""
    steps = x / along_channels(term.scale, x.ndim)
    distance = jnp.abs(steps * 2 - jnp.round(steps * 2))
    powers = jnp.all(jnp.frexp(jnp.asarray(term.scale))[0] == 0.5)
    return bool(powers | jnp.all((term.codes == _on_grid(x, term)) | (distance < 1e-3)))
