"""WAGE: training and inference with integers in deep neural networks. Here its weight updates.

Wu, Li, Chen, Shi. ICLR 2018, arXiv 1802.04680. Released code: boluoweifenda/WAGE ("the code").

    sigma(k) = 2^(1-k),   Shift(x) = 2^round(log2 x)                                         (3.1)
    g_s      = eta g / Shift(max|g|)                                                         (3.3)
    dW       = sigma(k_G) sign(g_s) (floor|g_s| + Bernoulli(|g_s| - floor|g_s|))             (3.3)
    paper:     W <- clip(W - dW, -1 + sigma(k_G), 1 - sigma(k_G))                            (3.3)
    code:      W <- clip(W, -1 + sigma(k_W), 1 - sigma(k_W)) - dW

Plain gradient descent: no momentum, no decay. The stored weights lie on the grid of sigma(k_G).
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree, UInt32

from qjax.core.grid import check_bits, check_number
from qjax.core.powers import nearest_power


def whole_steps(
    g: Float[Array, "*shape"],
    rate: Float[Array, ""] | float,
    u: Float[Array, "*shape"] | float,
    unit: Float[Array, ""] | float | None = None,
) -> Float[Array, "*shape"]:
    """dW / sigma(k_G): whole numbers, stochastically rounded.

    Args:
        g: gradient of one weight tensor.
        rate: eta.
        u: uniform draws in [0, 1), one an element; a fraction f rounds up where u < f.
        unit: what g is divided by; None for Shift(max|g|).

    Example:
        >>> g = jax.grad(lambda w: 0.5 * jnp.sum(w**2))(jnp.array([1.0, -0.4]))
        >>> whole_steps(g, 8.0, jnp.array([0.9, 0.1])).tolist()
        [8.0, -4.0]
    """
    size = rate * jnp.abs(g / (nearest_power(jnp.max(jnp.abs(g))) if unit is None else unit))
    whole = jnp.floor(size)
    return jnp.sign(g) * (whole + (u < size - whole))


class WageState(NamedTuple):
    """What the update keeps: updates made, the data of the rounding's random key (each update folds
    its number in), the base rate, and the rate of the latest update, for logs.
    """

    step: Int[Array, ""]
    key: UInt32[Array, "2"]
    eta: Float[Array, ""]
    learning_rate: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class WageSgd:
    """Gradient descent in whole steps of sigma(k_G): a stored weight never leaves its grid.

    Attributes:
        learning_rate: eta, in (0, 1e6], traced; powers of two in the paper (1, on CIFAR-10 8).
        schedule: multiplier of eta, a value of `qjax.training.schedules`.
        bits: k_G, 2 to 16.
        weight_bits: k_W, 2 to k_G, for the code's clip; None for the paper's.
        seed: of the stochastic rounding, traced.
        stochastic: False rounds to nearest (an ablation).
        scaled: False does not divide by Shift(max|g|), so that eta is an ordinary rate (another).

    Differences from the paper: `weight_bits` (the published figures were made with the code); a
    fraction rounds up where u < f, so that no half steps arise as in the code at u = f.

    Example:
        >>> from qjax.training.schedules import Constant
        >>> w = {"kernel": jnp.array([0.5, 0.0])}
        >>> optimizer = WageSgd(1.0, Constant()).build(10, 10, {"kernel": "weight"})
        >>> g = {"kernel": jnp.array([4.0, 0.0])}
        >>> optimizer.update(g, optimizer.init(w), w)[0]["kernel"].tolist()
        [-0.0078125, 0.0]
    """

    learning_rate: float
    schedule: Any
    bits: int = 8
    weight_bits: int | None = 2
    seed: int = 0
    stochastic: bool = True
    scaled: bool = True

    reference: ClassVar[str] = "wu2018wage"
    traced: ClassVar[tuple[str, ...]] = ("learning_rate", "seed")

    def __post_init__(self) -> None:
        check_number("WageSgd", "learning_rate", self.learning_rate, 1e-6, 1e6)
        check_bits("WageSgd", self.bits, 2, 16)
        if self.weight_bits is not None and not 2 <= self.weight_bits <= self.bits:
            raise ValueError(
                f"WageSgd.weight_bits must be from 2 to bits={self.bits}, or None for the paper's "
                f"clip, got {self.weight_bits!r}; a clip between two stored values leaves the grid"
            )

    def build(
        self, total_steps: int, steps_per_epoch: int, labels: PyTree[str]
    ) -> optax.GradientTransformation:
        """The transformation of gradients to updates that end on the grid, as `Optimizer` says.

        Raises:
            ValueError: an array that is no kernel; WAGE has weights only.
        """
        if others := sorted(set(jax.tree.leaves(labels)) - {"weight"}):
            raise ValueError(
                f"WageSgd moves weights only, but the model also trains {', '.join(others)}; take "
                "a model without biases and normalization (model=wage_lenet) and WAGE's quantizers"
            )
        fraction = self.schedule.build(total_steps, steps_per_epoch)
        unit = None if self.scaled else 2.0 ** (1 - self.bits)
        draw = jax.random.uniform if self.stochastic else lambda _, shape: jnp.full(shape, 0.5)

        def init(params: PyTree) -> WageState:
            del params
            key = jax.random.key_data(jax.random.key(self.seed))
            eta = jnp.float32(self.learning_rate)
            return WageState(jnp.int32(0), key, eta, eta * fraction(0))

        def update(updates: PyTree, state: Any, params: PyTree | None = None) -> tuple[PyTree, Any]:
            rate = state.eta * fraction(state.step)
            weights, tree = jax.tree.flatten(params)
            key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
            keys = jax.random.split(key, len(weights))
            moves = [
                self._moved(w, whole_steps(g, rate, draw(k, w.shape), unit)) - w
                for w, g, k in zip(weights, jax.tree.leaves(updates), keys, strict=True)
            ]
            kept = state._replace(step=state.step + 1, learning_rate=rate)
            return jax.tree.unflatten(tree, moves), kept

        return optax.GradientTransformation(init, update)

    def _moved(self, w: Array, steps: Array) -> Array:
        sigma = 2.0 ** (1 - self.bits)
        if self.weight_bits is None:
            return jnp.clip(w - sigma * steps, sigma - 1, 1 - sigma)
        bound = 1 - 2.0 ** (1 - self.weight_bits)
        return jnp.clip(w, -bound, bound) - sigma * steps
