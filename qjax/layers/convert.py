"""Conversion that all layers with weights share: what arrives decides which twin they become."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array

from qjax.core.codes import Codes
from qjax.core.requantize import WIDEST, Policy
from qjax.layers.layer import FloatBoundary, Layer, Value, landing
from qjax.layers.linear import IntegerLinear, Kernels
from qjax.layers.slots import Slot


def convert_linear(
    layer: Layer,
    inputs: tuple[Value, ...],
    policy: Policy,
    kernel: Array,
    after: tuple[np.ndarray, np.ndarray],
    kernels: Callable[[tuple[int, ...]], Kernels],
) -> nnx.Module:
    """The twin of a layer with slots weight, input and output.

    Args:
        layer: the layer; it stays float when its weight slot is float or it receives floats.
        inputs: the one input, abstract.
        policy: arithmetic of its requantizations.
        kernel: the float kernel that is encoded.
        after: real (factor, offset) behind the product sum, each (o,).
        kernels: input shape -> integer operations.

    Raises:
        ValueError: when pending sums arrive instead of codes, or an accumulator could overflow.
    """
    (x,) = inputs
    weight = getattr(layer, "weight")  # noqa: B009 - `Layer` does not declare it
    if not isinstance(weight, Slot):
        return FloatBoundary(layer)
    entry = landing(layer.input, x, policy)  # pyright: ignore[reportAttributeAccessIssue]
    if entry is None and not isinstance(x, Codes):
        return FloatBoundary(layer)
    fed = jax.eval_shape(entry, x) if entry is not None else x
    _require_plain(fed)
    exit_ = landing(layer.output, fed, policy)  # pyright: ignore[reportAttributeAccessIssue]
    widest = WIDEST.get(policy, 0)
    codes = weight.encode(kernel)
    return IntegerLinear(codes, fed, kernels(fed.shape), after, entry, exit_, widest)


def _require_plain(x: Codes) -> None:
    if x.is_plain():
        return
    many = len(x.terms) > 1
    what = f"{len(x.terms)} pending sums" if many else f"a pending {x.terms[0].ints.dtype} sum"
    raise ValueError(
        f"its input is {what}, not codes on one grid; give this layer an `input` quantizer, or put "
        "an activation with an `output` quantizer before it"
    )
