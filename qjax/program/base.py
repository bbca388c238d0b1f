"""What every operator of a program is: names of its tensors, attributes, and two functions.

`infer` says on the host which shape its output has, and raises where its tensors do not fit;
`compute` is its integer arithmetic in JAX. Both are given a `Site`: the tensors that the operator's
names stand for, whose scales, zero points and code ranges say what has to be computed.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from jaxtyping import Array

from qjax.core.host import HostArray
from qjax.core.intconv import conv_acc, dense_acc
from qjax.core.saturation import saturating_conv_acc, saturating_dense_acc
from qjax.program.tensor import Shape, Tensor

MAX_SIDE = 2**16
"""Largest stride, dilation, padding or window that an attribute may hold."""


class NotExpressible(ValueError):
    """A format cannot hold an operator; the message names one that can."""


class Products(NamedTuple):
    """How product sums are computed; int8 operands, int32 sums.

    Attributes:
        conv: as `intconv.conv_acc`.
        dense: as `intconv.dense_acc`.
    """

    conv: Callable[..., Array]
    dense: Callable[[Array, Array], Array]


EXACT = Products(conv_acc, dense_acc)
"""What every integer runtime means to compute."""
SATURATING = Products(saturating_conv_acc, saturating_dense_acc)
"""What those with pairs in int16 do (CPUs without VNNI), see `core/saturation.py`."""


class Site(NamedTuple):
    """Where an operator stands.

    Attributes:
        inputs, output: its tensors.
        policy: the arithmetic of its rounding, a name of `core/requantize.py`.
        products: the arithmetic of its sums.
    """

    inputs: tuple[Tensor, ...]
    output: Tensor
    policy: str
    products: Products = EXACT


@dataclasses.dataclass(frozen=True)
class Operator(abc.ABC):
    """One step of a program; a frozen value whose further fields are its attributes.

    Attributes:
        kind: its word in listings and files.
        arity: how many inputs it takes, least and most.
        inputs, output: names of tensors.
    """

    kind: ClassVar[str]
    arity: ClassVar[tuple[int, int]]

    inputs: tuple[str, ...]
    output: str

    @abc.abstractmethod
    def infer(self, site: Site) -> Shape:
        """The shape of the output.

        Raises:
            ValueError: tensors or attributes that do not fit together, or a sum that could leave
                int32.
        """

    @abc.abstractmethod
    def compute(self, site: Site, *values: Array) -> Array:
        """The output's codes from the inputs', in the output's dtype and range."""

    def attributes(self) -> dict[str, object]:
        """Attributes by name, in order of definition."""
        fields = [field.name for field in dataclasses.fields(self)]
        return {name: getattr(self, name) for name in fields if name not in ("inputs", "output")}

    def note(self) -> str:
        """Attributes as a listing shows them: those that are not as they would be if left out."""
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        shown = [(k, v) for k, v in self.attributes().items() if v != usual[k]]
        return " ".join(f"{name}={_short(value)}" for name, value in shown)


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return "(" + " ".join(_short(item) for item in value) + ")"
    if isinstance(value, HostArray) and value.value.ndim:
        return f"[{value.value.size} numbers]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def require_whole(owner: str, field: str, values: object, least: int, most: int) -> None:
    """Raise unless `values` is a whole number, or nested tuples of them, in [least, most]."""
    if isinstance(values, tuple):
        for value in values:
            require_whole(owner, field, value, least, most)
    elif isinstance(values, bool) or not isinstance(values, int) or not least <= values <= most:
        raise ValueError(f"{owner}.{field} must be whole, from {least} to {most}, got {values!r}")


def require_pair(owner: str, field: str, value: object, least: int) -> None:
    """Raise unless `value` is (rows, columns), each whole and from `least`."""
    if not isinstance(value, tuple) or len(value) != 2:
        raise ValueError(f"{owner}.{field} must be (rows, columns), got {value!r}")
    require_whole(owner, field, value, least, MAX_SIDE)


def require_padding(owner: str, value: object) -> None:
    """Raise unless `value` is ((top, bottom), (left, right)), whole and not negative."""
    if not isinstance(value, tuple) or len(value) != 2:
        raise ValueError(f"{owner}.padding must be ((top, bottom), (left, right)), got {value!r}")
    for side in value:
        require_pair(owner, "padding", side, 0)


def require_rank(tensor: Tensor, *ranks: int) -> None:
    """Raise unless a tensor has one of these numbers of axes."""
    if len(tensor.shape) not in ranks:
        allowed = " or ".join(map(str, ranks))
        raise ValueError(f"{tensor} must have {allowed} axes, got shape {tensor.shape}")


def require_dtype(tensor: Tensor, *dtypes: str) -> None:
    """Raise unless a tensor is of one of these types."""
    if tensor.dtype not in dtypes:
        raise ValueError(f"{tensor} must be {' or '.join(dtypes)}, got {tensor.dtype}")


def require_same_units(one: Tensor, other: Tensor) -> None:
    """Raise unless two tensors share dtype, scale and zero point: codes may pass unchanged."""
    if one.dtype != other.dtype or one.quantization != other.quantization:
        raise ValueError(
            f"{one} and {other} must have one dtype, scale and zero point, got {one.dtype} "
            f"{one.quantization} and {other.dtype} {other.quantization}"
        )
