"""Fully connected layers."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from qjax.core.intconv import dense_acc
from qjax.program.base import Operator, Site, require_rank
from qjax.program.ops import weights
from qjax.program.tensor import Shape


@dataclasses.dataclass(frozen=True)
class Dense(Operator):
    """y[..., o] = sum_c (x[..., c] - Z_x) (w[c, o] - Z_w) + bias[o].

    Inputs: x, whose elements are read as rows of c whatever its shape (as TFLite does); weights
    (c, o); and, if any, an int32 bias (o,). The output has the rows in any shape that ends in o.
    An int32 output is the sum itself; any other one is requantized.
    """

    kind: ClassVar[str] = "dense"
    arity: ClassVar[tuple[int, int]] = (2, 3)

    def infer(self, site: Site) -> Shape:
        """The output's own shape, where it holds as many rows as the input does."""
        x, weight = site.inputs[:2]
        require_rank(weight, 2)
        depth, channels = weight.constant.shape
        output = site.output
        rows, rest = divmod(x.elements, depth)
        fits = not rest and rows * channels == output.elements and output.shape[-1] == channels
        if not fits or (x.shape[0] is None) != (output.shape[0] is None):
            raise ValueError(
                f"{weight} of shape {weight.shape} does not take {x} of shape {x.shape} to "
                f"{output} of shape {output.shape}"
            )
        weights.check(site, channels)
        return output.shape

    def compute(self, site: Site, *values: Array) -> Array:
        """Accumulate in int32, then requantize."""
        weight = site.inputs[1]
        plan = weights.plan(weight)
        x, _ = weights.signed(values[0], site.inputs[0])
        rows = x.reshape(-1, plan.kernel.shape[0])
        total = dense_acc(rows, jnp.asarray(plan.kernel))
        if plan.correction is not None:
            sums = jnp.sum(rows, axis=1, keepdims=True, dtype=jnp.int32)
            total = plan.double * total - weights.lanes(plan.correction, 2) * sums
        total = total.reshape(*_sizes(site.output.shape, x.shape[0]))
        return weights.finish(site, total, plan, per_tensor=weight.units.axis is None)


def _sizes(shape: Shape, batch: int) -> tuple[int, ...]:
    return tuple(batch if size is None else size for size in shape)
