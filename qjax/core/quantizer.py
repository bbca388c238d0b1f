"""The quantizer protocol: one definition of how a real number becomes an integer code, and with
what gradient.

Glossary. *Numbers* `p`: the named arrays a quantizer works with, of four kinds: `learned` (clips,
steps: an optimizer moves them), `statistic` (running ranges: the forward pass moves them), `traced`
(bits, decays: what varies inside one compiled program) and `progress` (a scalar in [0, 1], the
share of the training that is done: the training step sets it). *Role*: what kind of tensor is
quantized, and how many elements share one number.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from qjax.core.codes import Codes, IntegerTerm, Term, int8_shift
from qjax.core.grid import Grid
from qjax.core.host import HostArray

Kind = Literal["learned", "statistic", "traced", "progress"]
Numbers = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class Role:
    """What a quantizer is applied to.

    Attributes:
        kind: weight (channels last), activation (batch first, channels last) or error (a backward
            signal).
        features: elements of the tensor without the batch axis: the N of LSQ's gradient scale.
    """

    kind: Literal["weight", "activation", "error"]
    features: int


class Quantizer(abc.ABC):
    """A frozen value that says how a tensor is quantized.

    A subclass is a frozen dataclass of hyper-parameters, validated at construction. It writes
    `init`, `codes` and `__call__`; the rest follows. A hyper-parameter whose name also stands in
    `kinds` as traced moves into the numbers when a model is quantized (`stripped`), so that one
    compiled program serves all its values.

    Attributes:
        reference: citation key of the paper (see `experiments/` and the module's docstring).
        roles: which kinds of tensor it is for.
        kinds: what each number of `init` is.
        rectifies: whether the grid begins at zero by definition, so that a ReLU before it is
            redundant (PACT and DoReFa activations replace the ReLU).
        rescales: whether decoded weights have another magnitude than the weights (DoReFa), so that
            a normalization of their products must follow.
        stochastic: whether `__call__` (and `linear`) take a further argument `key`, a random key
            that is fresh at every training step; it is None in evaluation, where noise is off.
        is_float: whether it leaves the tensor as it is (`NoQuantizer`): no codes, no slot.
        not_idempotent: why quantizing a quantized tensor may change it again; empty where it may
            not, which the laws then hold.
    """

    reference: ClassVar[str]
    roles: ClassVar[tuple[str, ...]]
    kinds: ClassVar[Mapping[str, Kind]]
    rectifies: ClassVar[bool] = False
    rescales: ClassVar[bool] = False
    stochastic: ClassVar[bool] = False
    is_float: ClassVar[bool] = False
    not_idempotent: ClassVar[str] = ""

    @abc.abstractmethod
    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """First numbers, from a real sample of the tensor."""

    @abc.abstractmethod
    def codes(self, p: Numbers, x: Float[Array, "*shape"]) -> tuple[Term, ...]:
        """The traced terms: the one place where codes are computed. Simulation and `encode` both
        call it.
        """

    @abc.abstractmethod
    def __call__(self, p: Numbers, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The simulated tensor: forward `decode(codes)`, backward the paper's gradient."""

    def observe(self, p: Numbers, x: Float[Array, "..."]) -> dict[str, Array]:
        """New values of the statistics after seeing `x` in training; none by default."""
        del p, x
        return {}

    def penalty(self, p: Numbers) -> Float[Array, ""]:
        """A term the method adds to the training loss (PACT's decay of alpha); zero by default."""
        del p
        return jnp.zeros(())

    def encode(self, p: Numbers, x: Float[Array, "*shape"]) -> Codes:
        """The exact integer form of a concrete tensor: int8 arrays with host scales, compiled.

        Raises:
            ValueError: when a code range does not fit 8 bits.
        """
        return Codes(tuple(_integer_term(term) for term in _compiled_codes(self, dict(p), x)))

    def grid(self, p: Numbers) -> Grid:
        """The uniform grid of an activation quantizer, from concrete numbers.

        Raises:
            ValueError: when the quantizer does not serve activations or its scale is not a positive
                number.
        """
        if "activation" not in self.roles:
            raise ValueError(
                f"{type(self).__name__} has no activation grid: it serves {', '.join(self.roles)} "
                f"only"
            )
        (term,) = _compiled_codes(self, dict(p), jnp.zeros((1,), jnp.float32))
        return Grid(float(term.scale), float(term.zero_point), int(term.low), int(term.high))

    @property
    def label(self) -> str:
        """Its name in layer tables."""
        return type(self).__name__

    @property
    def references(self) -> tuple[str, ...]:
        """Citation keys, more than one where a quantizer is put around another."""
        return (self.reference,)

    def stripped(self) -> Self:
        """This quantizer without its traced hyper-parameters, which live in the numbers from now
        on.
        """
        names = {field.name for field in dataclasses.fields(self)}  # pyright: ignore[reportArgumentType]
        moved = {
            name: None for name, kind in self.kinds.items() if kind == "traced" and name in names
        }
        return dataclasses.replace(self, **moved)  # pyright: ignore[reportArgumentType]


def check_hashable(quantizer: Quantizer) -> None:
    """Raise when a field cannot be hashed, here and not when a graph definition is first compared.

    Raises:
        TypeError: naming the class; lists and arrays in a frozen dataclass construct without
            complaint otherwise.
    """
    try:
        hash(quantizer)
    except TypeError as error:
        raise TypeError(
            f"{type(quantizer).__name__} holds a field that cannot be hashed ({error}); "
            "give numbers, strings, tuples or other frozen values"
        ) from error


@partial(jax.jit, static_argnums=0)
def _compiled_codes(quantizer: Quantizer, p: dict[str, Array], x: Array) -> tuple[Term, ...]:
    terms = quantizer.codes(p, x)
    return tuple(Term(*(jnp.asarray(part, jnp.float32) for part in term)) for term in terms)


def _integer_term(term: Term) -> IntegerTerm:
    low, high = int(term.low), int(term.high)
    shift = int8_shift(low, high)
    ints = np.asarray(term.codes) - shift
    assert ints.min(initial=0) >= low - shift and ints.max(initial=low - shift) <= high - shift
    return IntegerTerm(
        jnp.asarray(ints, jnp.int8),
        HostArray(np.asarray(term.scale)),
        HostArray(np.asarray(term.zero_point, np.float64) - shift),
        low - shift,
        high - shift,
    )
