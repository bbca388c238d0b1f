"""ELQ: explicit loss-error-aware quantization for low-bit deep neural networks. Here its
incremental partition, as the start of a phase.

Zhou, Yao, Wang, Chen. CVPR 2018; the partition is described as that of INQ, Zhou, Yao, Guo, Xu,
Chen, ICLR 2017, arXiv 1702.03044.

    G1 grows to a portion of each layer's weights, the largest |w| of G2 first; what joins it takes
    the code nearest to it, keeps it and is held; G2 is retrained

Accumulated portions of INQ: 0.5, 0.75, 0.875, 1 (ResNet-18) or 0.3, 0.6, 0.8, 1 (AlexNet). Which
weights ELQ takes first, and how many, is not confirmed.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from qjax.core.quantizer import Numbers, Quantizer


def hold(
    quantizer: Quantizer, p: Numbers, w: Float[Array, "*shape"], portion: float
) -> dict[str, Array]:
    """The numbers after G1 has grown to `portion` of the weights, rounded up.

    Args:
        quantizer: one whose numbers are among others `held`, `held_codes` and `whole`.
        p: its numbers.
        w: the weights that it quantizes.
        portion: in (0, 1]; a smaller one than G1 already has leaves G1 as it is.
    """
    (term,) = quantizer.codes(p, w)
    held = np.asarray(p["held"])
    size = np.where(held, np.inf, np.abs(w)).ravel()
    # A stable order, so that equal magnitudes join in the order of the array everywhere.
    first = np.argsort(-size, kind="stable")[: max(held.sum(), int(np.ceil(portion * size.size)))]
    grown = np.zeros(size.size, bool)
    grown[first] = True
    return {
        **p,
        "held": jnp.asarray(grown.reshape(w.shape)),
        "held_codes": jnp.where(grown.reshape(w.shape), term.codes, 0),
        "whole": jnp.asarray(False),
    }


@dataclasses.dataclass(frozen=True)
class HoldPart:
    """Start of a phase: hold a portion of the weights of every layer whose quantizer can.

    Attributes:
        portion: accumulated share of each layer's weights, in (0, 1]; at 1 none is float any more.

    Example:
        >>> import jax
        >>> from qjax.core.quantizer import Role
        >>> from qjax.methods.elq import ElqWeight
        >>> q = ElqWeight(bits=2, loss_weight=0.0, error_weight=0.0)
        >>> w = jnp.array([1.0, -0.5, 0.125, 0.0])
        >>> p = hold(q, q.init(w, Role("weight", 4)), w, HoldPart(0.25).portion)
        >>> q(p, w - 0.5).tolist()
        [0.75, -1.0, -0.375, -0.5]
        >>> jax.grad(lambda w: q(p, w).sum())(w).tolist()
        [0.0, 1.0, 1.0, 1.0]
    """

    portion: float

    reference: ClassVar[str] = "zhou2018elq"

    def __post_init__(self) -> None:
        if not 0 < self.portion <= 1:
            raise ValueError(f"HoldPart.portion must be in (0, 1], got {self.portion!r}")

    def __call__(self, model: nnx.Module, key: PRNGKeyArray) -> None:
        """Changes the numbers of the model in place.

        Raises:
            ValueError: no layer's quantizer holds weights.
        """
        del key
        found = False
        for _, layer in nnx.iter_modules(model):
            slot: Any = getattr(layer, "weight", None)
            if "held" not in getattr(slot, "numbers", ()):
                continue
            found = True
            norm: Any = getattr(layer, "norm", None)
            kernel = getattr(layer, "kernel")[...]  # noqa: B009 - nnx.Module does not declare it
            weights = kernel if norm is None else norm.folded(kernel)
            for name, value in hold(slot.quantizer, slot.values(), weights, self.portion).items():
                slot.numbers[name][...] = value
        if not found:
            raise ValueError("HoldPart found no layer that can hold weights; set weight=elq")
