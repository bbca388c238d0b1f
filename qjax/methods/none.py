"""No quantization: the float baseline as a choice, not an absence.

A rule that names `NoQuantizer` says that a tensor stays float on purpose (the first and last layers
of many papers); a tensor that no rule mentions is an error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Array, Float

from qjax.core.codes import Term
from qjax.core.quantizer import Kind, Numbers, Quantizer, Role


@dataclasses.dataclass(frozen=True)
class NoQuantizer(Quantizer):
    """The identity: forward `y = x`, backward `dy/dx = 1`, no codes.

    Differences from the paper: none, there is none.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> float(NoQuantizer()({}, jnp.float32(0.5)))
        0.5
        >>> float(jax.grad(lambda x: NoQuantizer()({}, x))(jnp.float32(0.5)))
        1.0
    """

    reference: ClassVar[str] = "none"
    roles: ClassVar[tuple[str, ...]] = ("weight", "activation", "error")
    kinds: ClassVar[Mapping[str, Kind]] = {}
    is_float: ClassVar[bool] = True

    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """No numbers."""
        del x, role
        return {}

    def codes(self, p: Numbers, x: Float[Array, "*shape"]) -> tuple[Term, ...]:
        """Raises: TypeError, a float tensor has no codes."""
        del p, x
        raise TypeError(
            "NoQuantizer leaves a tensor in float: it has no codes; choose a quantizer for this "
            "slot"
        )

    def __call__(self, p: Numbers, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The tensor itself."""
        del p
        return x
