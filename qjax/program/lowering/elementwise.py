"""Two operands, and functions of one code, in the forms that a format has."""

import dataclasses
from collections.abc import Sequence
from functools import partial

import numpy as np

from qjax.core.affine import HostNumber
from qjax.core.host import HostArray
from qjax.program import ops
from qjax.program.base import Operator, Site
from qjax.program.lowering.draft import Draft, Value, refuse
from qjax.program.lowering.fuse import Grid
from qjax.program.tensor import Quantization, Tensor

_EXACT = 1e-6


def total(
    draft: Draft, codes: Tensor, grid: Grid, terms: Sequence[tuple[Value, HostNumber]]
) -> Value:
    """Write the sum or the difference of two tensors of codes.

    Args:
        draft: to write to.
        codes: the network's tensor of the result.
        grid: where it lives.
        terms: operands and output steps a code of each, of either sign.

    Raises:
        NotExpressible: scales by channel, or a difference where the format has none.
    """
    signs = []
    for value, scale in terms:
        ratio = np.asarray(scale) * grid.scale / value.grid.scale
        sign = float(np.sign(ratio.flat[0]))
        if (np.abs(ratio - sign) > _EXACT).any() or not sign:
            raise refuse(codes.name, "an addition with scales by channel", draft.container)
        signs.append(sign)
    names = tuple(value.tensor.name for value, _ in terms)
    if signs == [1, 1]:
        make = partial(ops.Add, names)
    elif max(signs) == 1:
        require(draft, codes.name, "sub")
        make = partial(ops.Sub, names if signs[0] == 1 else names[::-1])
    else:
        raise refuse(codes.name, "a sum of two negatives", draft.container)
    return draft.land(codes, grid, make, fuses=True)


def require(draft: Draft, name: str, kind: str) -> None:
    """Raise unless the format has an operator.

    Raises:
        NotExpressible: naming the tensor and the operator.
    """
    if kind not in draft.container.holds:
        raise refuse(name, f"a {kind}", draft.container)


def largest(draft: Draft, operator: Operator, codes: Tensor, values: Sequence[Value]) -> Value:
    """Write the larger of two codes of one grid (a leaky ReLU's branches)."""
    require(draft, codes.name, operator.kind)
    one, other = values
    if one.grid[:2] != other.grid[:2]:
        raise refuse(codes.name, "a maximum of codes on two grids", draft.container)
    names = one.tensor.name, other.tensor.name
    output = draft.codes(codes.name, codes.shape, one.grid, *draft.container.range)
    draft.add(dataclasses.replace(operator, inputs=names, output=output.name), output)
    return Value(output, one.zero, max(one.low, other.low), max(one.high, other.high))


def curve(draft: Draft, operator: ops.Lookup, name: str, x: Value) -> Value:
    """Write a function of one code, on the grid that the format gives it.

    Raises:
        NotExpressible: a table that is none of the format's functions.
    """
    known = draft.container.curves.get(operator.function)
    if known is None:
        raise refuse(name, f"a table of {operator.function}", draft.container)
    output = _fixed(draft, f"{name}.{known.word}", x, known.step, known.zero)
    table = draft.constant(f"{name}.{known.word}.table", known.table(x.tensor, output))
    names = x.tensor.name, table.name
    draft.add(ops.Lookup(names, output.name, known.word), output)
    return Value(output, known.zero, *draft.container.range)


def shares(draft: Draft, operator: ops.Softmax, name: str, x: Value) -> Value:
    """Write a softmax, on the grid that the format gives it."""
    require(draft, name, "softmax")
    output = _fixed(draft, f"{name}.softmax", x, 1 / 256, draft.container.range[0])
    draft.add(ops.Softmax((x.tensor.name,), output.name, operator.beta), output)
    return Value(output, output.units.zero, *draft.container.range)


def _fixed(draft: Draft, name: str, x: Value, step: float, zero: int) -> Tensor:
    units = Quantization(HostArray(step), HostArray(float(zero)))
    return Tensor(name, x.tensor.shape, x.tensor.dtype, units, *draft.container.range)


def times(draft: Draft, site: Site, values: Sequence[Value]) -> partial:
    """What makes the product of two tensors of codes, given the name of its output.

    Raises:
        NotExpressible: the format has none.
    """
    require(draft, site.output.name, "mul")
    return partial(ops.Mul, tuple(value.tensor.name for value in values))
