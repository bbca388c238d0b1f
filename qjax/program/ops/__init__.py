"""The operators that programs are made of, by the word that stands in files and listings."""

from collections.abc import Mapping
from types import MappingProxyType

from qjax.program.base import Operator
from qjax.program.ops.activation import Clip, LeakyRelu, Lookup, Softmax
from qjax.program.ops.border import Dequantize, Quantize, Recentre, Requantize
from qjax.program.ops.conv import Conv2D, TransposeConv2D
from qjax.program.ops.dense import Dense
from qjax.program.ops.elementwise import Add, Maximum, Minimum, Mul, Sub
from qjax.program.ops.pool import AveragePool, MaxPool, SumPool
from qjax.program.ops.reduce import ArgMax, Mean, Sum
from qjax.program.ops.shape import Concat, Pad, Reshape, Slice

OPERATORS: Mapping[str, type[Operator]] = MappingProxyType(
    {
        operator.kind: operator
        for operator in (
            *(Conv2D, TransposeConv2D, Dense),
            *(Add, Sub, Mul, Maximum, Minimum),
            *(MaxPool, AveragePool, SumPool, Mean, Sum, ArgMax),
            *(Clip, LeakyRelu, Lookup, Softmax),
            *(Reshape, Pad, Slice, Concat),
            *(Quantize, Dequantize, Requantize, Recentre),
        )
    }
)
