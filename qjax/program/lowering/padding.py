"""Padding as an operator of its own, where a format's windows know only SAME and VALID."""

import dataclasses

from qjax.core.windows import Padding, Pair, explicit
from qjax.program import ops
from qjax.program.lowering.draft import Draft, Value

NONE: Padding = ((0, 0), (0, 0))


def convolution(
    draft: Draft, operator: ops.Conv2D, kernel: Pair, source: Value, name: str
) -> tuple[str, ops.Conv2D]:
    """A convolution in the format's form, and the tensor it reads, padded first if need be."""
    if draft.container.explicit_padding or _known(
        source, operator.padding, kernel, operator.strides, operator.dilation
    ):
        return source.tensor.name, operator
    given = _pad(draft, f"{name}.padded", source, operator.padding, None)
    return given, dataclasses.replace(operator, padding=NONE)


def maximum(draft: Draft, operator: ops.MaxPool, source: Value) -> ops.MaxPool:
    """A maximum in the format's form: what is padded is the least code, never the largest."""
    if draft.container.explicit_padding or _known(
        source, operator.padding, operator.window, operator.strides
    ):
        return operator
    least, _ = draft.container.range
    given = _pad(draft, f"{operator.output}.padded", source, operator.padding, least)
    return dataclasses.replace(operator, inputs=(given,), padding=NONE)


def _known(
    source: Value, padding: Padding, window: Pair, strides: Pair, dilation: Pair = (1, 1)
) -> bool:
    """Whether a padding is SAME or VALID."""
    _, rows, columns, _ = source.tensor.shape
    assert rows is not None and columns is not None
    sides = (rows, columns)
    return any(
        explicit(rule, sides, window, strides, dilation) == padding for rule in ("SAME", "VALID")
    )


def _pad(draft: Draft, name: str, source: Value, padding: Padding, value: int | None) -> str:
    widths = ((0, 0), *padding, (0, 0))
    sizes = zip(source.tensor.shape, widths, strict=True)
    shape = tuple(None if size is None else size + sum(width) for size, width in sizes)
    output = draft.codes(name, shape, source.grid, *draft.container.range)
    draft.add(ops.Pad((source.tensor.name,), name, widths, value), output)
    return name
