"""Host constants: small float64 arrays that hash and compare by value.

A scale known at conversion is a number of the *program*, never a leaf of the traced tree: as a leaf
it would be a float in an integer network. A numpy array cannot be static metadata (it does not
hash), so it is wrapped here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


class HostArray:
    """An immutable float64 array, equal and hashed by its bytes.

    Args:
        value: anything numpy turns into a float64 array of shape `()` or `(c,)`.

    Example:
        >>> HostArray([0.5, 0.25]) == HostArray((0.5, 0.25))
        True
        >>> len({HostArray(1.0), HostArray(1), HostArray(2.0)})
        2
    """

    __slots__ = ("value",)

    value: np.ndarray

    def __init__(self, value: ArrayLike | HostArray):
        array = np.array(value.value if isinstance(value, HostArray) else value, dtype=np.float64)
        array.flags.writeable = False
        object.__setattr__(self, "value", array)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("HostArray is immutable; make a new one")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, HostArray):
            return NotImplemented
        return (
            self.value.shape == other.value.shape and self.value.tobytes() == other.value.tobytes()
        )

    def __hash__(self) -> int:
        return hash((self.value.shape, self.value.tobytes()))

    def __repr__(self) -> str:
        if self.value.ndim == 0:
            return f"{float(self.value):.6g}"
        return (
            f"HostArray(shape={self.value.shape}, {self.value.min():.4g}..{self.value.max():.4g})"
        )

    def __copy__(self) -> HostArray:
        return self

    def __deepcopy__(self, memo: object) -> HostArray:
        del memo
        return self
