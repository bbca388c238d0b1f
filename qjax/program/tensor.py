"""Tensors of a program: name, shape, type, and what real numbers their integers stand for.

    value = scale * (code - zero_point)

with one scale for the tensor, or one for each index along `axis`. All of this is metadata on the
host; what a running program holds is the integers.
"""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from qjax.core.host import HostArray

type Shape = tuple[int | None, ...]
"""Sizes of the axes; None, allowed first only, is the batch."""

DTYPES: Mapping[str, type[np.number]] = MappingProxyType(
    {
        "int8": np.int8,
        "uint8": np.uint8,
        "int16": np.int16,
        "int32": np.int32,
        "float32": np.float32,
    }
)

MAX_RANK = 8
MAX_ELEMENTS = 2**31 - 1


def code_range(dtype: str) -> tuple[int, int]:
    """Least and largest code of an integer type.

    >>> code_range("uint8")
    (0, 255)
    """
    bits = 8 * np.dtype(DTYPES[dtype]).itemsize
    return (0, 2**bits - 1) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@dataclasses.dataclass(frozen=True)
class Quantization:
    """Real units of a tensor's codes.

    Attributes:
        scale: real units a code, () or (c,), finite; for a sum by channel also negative (a BN gamma
            below zero) or zero (a dead channel).
        zero_point: the code of real zero, () or as `scale`; a multiple of one half.
        axis: the axis that (c,) numbers run along; None where there is one number for all.
    """

    scale: HostArray
    zero_point: HostArray
    axis: int | None = None

    def __post_init__(self) -> None:
        scale, zero = self.scale.value, self.zero_point.value
        if not np.isfinite(scale).all() or (scale.ndim == 0 and scale == 0):
            raise ValueError(f"Quantization.scale must be finite and not zero, got {scale}")
        if not np.isfinite(zero).all() or (2 * zero != np.round(2 * zero)).any():
            raise ValueError(
                f"Quantization.zero_point must be multiples of one half, got {self.zero_point}"
            )
        if scale.ndim > 1 or zero.ndim > 1 or (zero.ndim and zero.shape != scale.shape):
            raise ValueError(
                "Quantization.scale and .zero_point must be numbers or lists of one length, got "
                f"shapes {scale.shape} and {zero.shape}"
            )
        if (scale.ndim == 0) != (self.axis is None):
            raise ValueError(
                f"Quantization.axis must be set just where scale is a list, got {self.axis!r} for "
                f"a scale of shape {scale.shape}"
            )

    @property
    def step(self) -> float:
        """The one scale of a tensor that has one.

        Raises:
            ValueError: there is one for each channel.
        """
        if self.axis is not None:
            raise ValueError("needs one scale for the whole tensor, got one for each channel")
        return float(self.scale.value)

    @property
    def zero(self) -> int:
        """The one zero point of a tensor that has one, as a whole number.

        Raises:
            ValueError: there is one for each channel, or it is not whole.
        """
        zero = self.zero_point.value
        if zero.ndim or zero != np.round(zero):
            raise ValueError(f"needs one whole zero point for the tensor, got {self.zero_point}")
        return int(zero)


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A named array of a program: an activation, or a constant where `data` is given.

    Attributes:
        name: unique in its program; printable, without spaces.
        shape: sizes of the axes, each at least 1; the first may be None, the batch.
        dtype: int8, uint8, int16, int32, or float32 at a border.
        quantization: what the codes stand for; None for a plain integer (a class index).
        low, high: least and largest code it can hold, both included: what its operator clamps to.
            Left out, the whole range of `dtype`, or that of `data`.
        data: the values of a constant, read-only; None for an activation.

    Raises:
        ValueError, TypeError: naming the tensor, the field, the value and what is allowed.
    """

    name: str
    shape: Shape
    dtype: str
    quantization: Quantization | None = None
    low: int | None = None
    high: int | None = None
    data: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.name or not self.name.isprintable() or " " in self.name:
            raise ValueError(f"Tensor.name must be printable and without spaces, got {self.name!r}")
        if self.dtype not in DTYPES:
            raise ValueError(f"{self}.dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        self._check_shape()
        self._check_data()
        self._check_range()
        self._check_quantization()

    def __str__(self) -> str:
        return f"tensor {self.name!r}"

    def _check_shape(self) -> None:
        sizes = self.shape[1:] if self.shape[:1] == (None,) else self.shape
        whole = all(isinstance(size, int) and 1 <= size <= MAX_ELEMENTS for size in sizes)
        if len(self.shape) > MAX_RANK or not whole or self.elements > MAX_ELEMENTS:
            raise ValueError(
                f"{self}.shape must be at most {MAX_RANK} sizes of 1 or more, the first possibly "
                f"None, with at most 2**31 - 1 elements a sample, got {self.shape}"
            )

    def _check_data(self) -> None:
        if self.data is None:
            return
        if self.data.dtype != DTYPES[self.dtype] or self.data.shape != self.shape:
            raise TypeError(
                f"{self}.data must be {self.dtype} of shape {self.shape}, got {self.data.dtype} of "
                f"shape {self.data.shape}"
            )
        if self.dtype == "float32":
            raise TypeError(f"{self}: a constant must be integer, got float32")
        view = self.data.view()
        view.flags.writeable = False
        object.__setattr__(self, "data", view)

    def _check_range(self) -> None:
        if self.dtype == "float32":
            if self.low is not None or self.high is not None:
                raise ValueError(f"{self}: a float tensor has no code range")
            return
        widest = code_range(self.dtype)
        ends = widest
        if self.data is not None:
            ends = (int(self.data.min()), int(self.data.max()))
        low = ends[0] if self.low is None else self.low
        high = ends[1] if self.high is None else self.high
        inside = widest[0] <= low <= high <= widest[1]
        if not inside or (self.data is not None and not low <= ends[0] <= ends[1] <= high):
            raise ValueError(
                f"{self}.low and .high must enclose its codes inside {self.dtype}, got {low} and "
                f"{high}"
            )
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def _check_quantization(self) -> None:
        if self.quantization is None or self.quantization.axis is None:
            return
        axis, count = self.quantization.axis, self.quantization.scale.value.size
        if not 0 <= axis < len(self.shape) or self.shape[axis] != count:
            raise ValueError(
                f"{self}: {count} scales along axis {axis} do not fit its shape {self.shape}"
            )

    @property
    def elements(self) -> int:
        """Number of elements a sample: the product of the sizes without the batch."""
        return math.prod(size for size in self.shape if size is not None)

    @property
    def range(self) -> tuple[int, int]:
        """(low, high), for any tensor but a float one."""
        assert self.low is not None and self.high is not None, self
        return self.low, self.high

    @property
    def units(self) -> Quantization:
        """Its quantization.

        Raises:
            ValueError: it has none.
        """
        if self.quantization is None:
            raise ValueError(f"{self} needs a scale and a zero point, it has none")
        return self.quantization

    @property
    def constant(self) -> np.ndarray:
        """Its data.

        Raises:
            ValueError: it is an activation.
        """
        if self.data is None:
            raise ValueError(f"{self} must be a constant of the program, it is computed")
        return self.data

    @property
    def bits(self) -> int:
        """Bits that its codes need: those of the range [low, high]; 32 for a float tensor."""
        if self.dtype == "float32":
            return 32
        low, high = self.range
        return max(1, (high - low).bit_length())
