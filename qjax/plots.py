"""Pictures of a quantizer, drawn from its code: the values it gives, and their gradients.

Nothing here knows a formula of any method. `curve` runs the quantizer on a tensor and takes the
derivatives of each element; `draw` puts them on two axes of the caller's.

Example:
    >>> import numpy as np
    >>> from qjax.methods.pact import Pact
    >>> drawn = curve(Pact(bits=2, alpha_init=3.0), "activation", np.array([-1.0, 1.2, 9.0]))
    >>> drawn.y.tolist(), drawn.slope.tolist(), drawn.learned["alpha"].tolist()
    ([0.0, 1.0, 3.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])

A quantizer of gradients is the identity forward; its curve is the gradient that leaves over the
one that arrives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from qjax.core.quantizer import Numbers, Quantizer, Role

if TYPE_CHECKING:  # a plotting library is no cost of importing this module
    from matplotlib.axes import Axes

POINTS = 481
Kind = Literal["weight", "activation", "error"]
SPANS: Mapping[Kind, tuple[float, float]] = {
    "weight": (-1.2, 1.2),
    "activation": (-0.75, 1.5),
    "error": (-1.2, 1.2),
}
"""Usual ends of the axis in real units; an activation is mostly positive."""


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """A quantizer over the elements of one tensor, all arrays of shape (points,).

    Attributes:
        x, y: real and simulated values, real units.
        slope: dy_i / dx_i as the backward pass gives it; of an error, what flows back where x_i
            arrives.
        learned: dy_i / dp for each learned number p, with the method's own gradient scale.
        kind: of tensor that is quantized.
    """

    x: np.ndarray
    y: np.ndarray
    slope: np.ndarray
    learned: dict[str, np.ndarray]
    kind: Kind = "activation"


def axis_of(kind: Kind, reach: float = 1.0) -> np.ndarray:
    """Evenly spaced numbers to draw over, (POINTS,): the usual span times `reach`, real units."""
    low, high = SPANS[kind]
    return np.linspace(low * reach, high * reach, POINTS)


def curve(
    quantizer: Quantizer,
    kind: Kind,
    x: np.ndarray,
    numbers: Numbers | None = None,
) -> Curve:
    """What a quantizer does to each element of `x`, forward and backward.

    Args:
        quantizer: as a user builds it. Noise is off; a gradient shows one draw of it.
        kind: which role it plays. A weight is one output channel with len(x) inputs, an error the
            gradient of one sample. Methods that divide gradients by a number of elements are told
            of one, which leaves the curve large.
        x: the tensor, (points,): where the method takes its range from the tensor, from this one.
        numbers: in place of the first numbers that the quantizer finds for `x`.
    """
    if kind == "error":
        return _gradient_curve(quantizer, np.asarray(x), numbers)
    column = jnp.asarray(x, jnp.float32).reshape(-1, 1)
    p = quantizer.init(column, Role(kind, 1)) if numbers is None else dict(numbers)
    names = [name for name, what in quantizer.kinds.items() if what == "learned"]
    y, slope, learned = _differentiate(quantizer.stripped(), p, {n: p[n] for n in names}, column)
    arrays = {name: np.asarray(value, np.float64) for name, value in learned.items()}
    values = np.asarray(y, np.float64), np.asarray(slope, np.float64)
    return Curve(np.asarray(x), *values, arrays, kind)


def _gradient_curve(quantizer: Quantizer, x: np.ndarray, numbers: Numbers | None) -> Curve:
    sample = jnp.asarray(x, jnp.float32).reshape(1, -1)
    p = quantizer.init(sample, Role("error", x.size)) if numbers is None else dict(numbers)
    noise = {"key": jax.random.key(0)} if quantizer.stochastic else {}
    y, pull = jax.vjp(lambda x: quantizer(p, x, **noise), sample)
    (back,) = pull(sample)
    values = (np.asarray(array, np.float64).ravel() for array in (y, back))
    return Curve(x, *values, learned={}, kind="error")


@partial(jax.jit, static_argnums=0)
def _differentiate(
    quantizer: Quantizer, p: dict[str, Array], learned: dict[str, Array], x: Float[Array, "n 1"]
) -> tuple[Array, Array, dict[str, Array]]:
    call = partial(quantizer, key=None) if quantizer.stochastic else quantizer  # pyright: ignore[reportCallIssue]

    def simulate(learned: dict[str, Array], x: Array) -> Array:
        return call({**p, **learned}, x).ravel()

    y, pull = jax.vjp(simulate, learned, x)
    # One cotangent an element: a sum would add what an element does to the others, through a
    # range that both share.
    d_learned, d_x = jax.vmap(pull)(jnp.eye(y.size, dtype=y.dtype))
    return y, jnp.diagonal(d_x.reshape(y.size, y.size)), d_learned


def draw(drawn: Curve, forward: Axes, backward: Axes) -> None:
    """Value over value on one axis, gradients on the other: of the value, or of an error over the
    gradient that arrives.
    """
    forward.plot(drawn.x, drawn.x, color="0.8", linewidth=1, label="identity")
    forward.plot(drawn.x, drawn.y, color="C0", label="quantized")
    # The steps are the subject; an identity that runs out of them would set the scale.
    low, high = drawn.y.min(), drawn.y.max()
    room = 0.15 * (high - low) or 1.0
    forward.set_ylim(low - room, high + room)
    if drawn.kind == "error":
        backward.plot(drawn.x, drawn.x, color="0.8", linewidth=1, label="identity")
        # Points: a line through a draw of noise would show its jumps.
        backward.plot(drawn.x, drawn.slope, ".", color="C1", markersize=2, label="gradient out")
    else:
        backward.plot(drawn.x, drawn.slope, color="C1", label="dy/dx")
    for index, (name, values) in enumerate(drawn.learned.items()):
        backward.plot(drawn.x, values, color=f"C{index + 2}", linestyle="--", label=f"dy/d{name}")
    backward.margins(y=0.35)  # room for the legend above a gradient of one
    backward.set_xlabel("gradient in" if drawn.kind == "error" else "x")
    forward.set_xlabel("x")
    for axis in (forward, backward):
        axis.axhline(0, color="0.85", linewidth=0.8, zorder=0)
        axis.legend(fontsize="x-small", loc="upper left")
