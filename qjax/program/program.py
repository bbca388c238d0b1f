"""The integer program: an integer network as data.

A program is a list of operators over named tensors. It needs no model code to run (`run.py`), is
saved without pickle (`storage.py`) and prints as a listing. Its tensors carry scale, zero point and
code range; its operators read them to know what to compute, in the arithmetic of one named policy.

    x        int8 [n 32 32 3]  the codes -128..127 of scale * (code - zero point)
    weights  int8 [3 3 3 16]   a constant, with a scale for each output channel
    conv2d   x, weights, bias -> y

Whatever a program was made from, it has been checked as a whole: names, order, shapes, and that no
sum can leave int32. So running one never raises for its own sake.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType

from qjax.core.requantize import policy as policy_of
from qjax.program.base import Operator, Site
from qjax.program.tensor import Tensor

MAX_OPERATORS = 100_000
MAX_ACTIVATIONS = 2**31
"""Elements of all activations together, a sample: beyond, a program is taken for a damaged file."""
MAX_READ = 2**28
"""Elements of constants that all operators together read: an operator checks those it reads."""


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """An integer network as data.

    Attributes:
        inputs, outputs: names of tensors; inputs are given at each run.
        tensors: every tensor, constants included; those of one name are one tensor.
        operators: in an order in which each finds its inputs computed.
        policy: arithmetic of every rounding, a name of `core/requantize.py`.

    Raises:
        ValueError: naming the tensor or the operator, and what is wrong with it.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    policy: str

    def __post_init__(self) -> None:
        policy_of(self.policy)
        if len(self.by_name) != len(self.tensors):
            counts = Counter(tensor.name for tensor in self.tensors)
            raise ValueError(
                f"Program.tensors must have different names, got {counts.most_common(1)[0][0]!r} "
                "twice"
            )
        if not self.inputs or not self.outputs or len(self.operators) > MAX_OPERATORS:
            raise ValueError(
                f"a program needs an input, an output and at most {MAX_OPERATORS} operators, got "
                f"{len(self.inputs)}, {len(self.outputs)} and {len(self.operators)}"
            )
        self._check_order()
        self._check_size()
        for place, operator in enumerate(self.operators):
            self._check_operator(place, operator)

    @cached_property
    def by_name(self) -> Mapping[str, Tensor]:
        """Every tensor by its name."""
        return MappingProxyType({tensor.name: tensor for tensor in self.tensors})

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of that name.

        Raises:
            ValueError: there is none.
        """
        if name not in self.by_name:
            raise ValueError(f"the program has no tensor {name!r}")
        return self.by_name[name]

    def site(self, operator: Operator) -> Site:
        """The tensors of an operator."""
        return Site(
            tuple(self[name] for name in operator.inputs), self[operator.output], self.policy
        )

    def _check_order(self) -> None:
        """Every tensor is known before it is read, and computed once."""
        known = {tensor.name for tensor in self.tensors if tensor.data is not None}
        for name in self.inputs:
            if self[name].data is not None or name in known:
                raise ValueError(f"Program.inputs: {name!r} must be an activation, named once")
            known.add(name)
        for operator in self.operators:
            for name in operator.inputs:
                if self[name].name not in known:
                    raise ValueError(
                        f"{operator.kind} -> {operator.output!r} reads {name!r} before it is "
                        "computed; operators must stand in order, without cycles"
                    )
            if self[operator.output].name in known:
                raise ValueError(f"tensor {operator.output!r} is computed twice, or not computed")
            known.add(operator.output)
        missing = [name for name in (*self.by_name, *self.outputs) if name not in known]
        if missing:
            raise ValueError(f"tensor {missing[0]!r} is neither given nor computed")

    def _check_size(self) -> None:
        size = sum(tensor.elements for tensor in self.tensors if tensor.data is None)
        if size > MAX_ACTIVATIONS:
            raise ValueError(f"activations must have at most 2**31 elements a sample, got {size}")
        read = [self[name] for operator in self.operators for name in operator.inputs]
        size = sum(tensor.elements for tensor in read if tensor.data is not None)
        if size > MAX_READ:
            raise ValueError(f"constants must be read for at most 2**28 elements, got {size}")

    def _check_operator(self, place: int, operator: Operator) -> None:
        least, most = operator.arity
        where = f"operator {place + 1}, {operator.kind} -> {operator.output!r}"
        if not least <= len(operator.inputs) <= most:
            raise ValueError(
                f"{where} must have {least} to {most} inputs, got {len(operator.inputs)}"
            )
        site = self.site(operator)
        try:
            shape = operator.infer(site)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if shape != site.output.shape:
            raise ValueError(f"{where} computes shape {shape}, declared is {site.output.shape}")

    def __str__(self) -> str:
        """The listing; see `listing.py`."""
        # Imported here: how a program prints is no part of what it is.
        from qjax.program.listing import listing

        return listing(self)
