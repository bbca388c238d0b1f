"""Targets: what a runtime or a chip takes, so that one method can be compared under several.

A target stands beside the method, which says how a tensor is quantized: it says where quantizers
sit and what the layers at the ends get (a recipe), which weights its kernels hold, how its scales
look, and how it rounds. `conf/target` has one file each; `target=none` leaves all of that to
`recipe` and `run.policy`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flax import nnx

from qjax.core.codes import IntegerTerm
from qjax.core.requantize import Policy, policy
from qjax.integerize import PixelInput, integerize
from qjax.layers.slots import Slot
from qjax.recipe import REQUIRED, Recipe
from qjax.surgery import folded_kernel
from qjax.tree import walk


@dataclasses.dataclass(frozen=True)
class Target:
    """One target.

    Attributes:
        name: for the record.
        recipe: where quantizers sit, the method's among them.
        policy: name of the arithmetic of every requantization (`core/requantize.py`).
        weights: least and largest integer that its kernels take for a weight, whose real zero is
            always the integer 0.
        integer: whether no layer may stay float.
        norm: a class that takes the place of separate batch normalization; None keeps it.
        norm_folds: whether batch normalization may be folded into the weights.
        pixels: how bytes become numbers, a function of `qjax/data/scaling.py`; None as configured.
    """

    name: str
    recipe: Recipe
    policy: str = "q31_even"
    weights: Sequence[int] = (-128, 127)
    integer: bool = True
    norm: Callable[..., nnx.Module] | None = None
    norm_folds: bool = True
    pixels: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(int(end) for end in self.weights))
        policy(self.policy)
        if len(self.weights) != 2 or not -128 <= self.weights[0] < 0 < self.weights[1] <= 127:
            raise ValueError(
                f"Target.weights must be two numbers around 0 inside [-128, 127], got "
                f"{list(self.weights)}"
            )

    @property
    def rounding(self) -> Policy:
        """The arithmetic of every requantization."""
        return policy(self.policy)

    def placing(self, recipe: Recipe) -> Recipe:
        """The target's recipe, with the gradient quantizers of another, which no runtime sees."""
        errors = (
            dataclasses.replace(rule, weight=None, input=None, output=None)
            for rule in recipe.rules
            if rule.error is not None
        )
        return dataclasses.replace(self.recipe, rules=(*errors, *self.recipe.rules))

    def batch_norm(
        self, chosen: Callable[..., nnx.Module] | None
    ) -> Callable[..., nnx.Module] | None:
        """What takes the place of separate batch normalization: the chosen class, else its own.

        Raises:
            ValueError: the chosen one folds, which the target excludes.
        """
        if chosen is not None and not self.norm_folds and getattr(chosen, "folds", True):
            name = getattr(chosen, "__name__", repr(chosen))
            raise ValueError(
                f"target={self.name} keeps batch normalization separate from the weights, but bn "
                f"chooses {name}, which folds it into them; leave bn out (bn=separate), or say "
                f"recipe={self.recipe.name} instead of the target"
            )
        return self.norm if chosen is None else chosen

    def check(self, model: nnx.Module, pixels: PixelInput, shape: tuple[int, ...]) -> None:
        """Raise unless a simulated model can run on the target.

        Args:
            model: what `quantize` returned, trained or not.
            pixels: how uint8 pixels stand for its input.
            shape: of one image, (h, w, c).

        Raises:
            ValueError: naming the layer, what the target cannot hold, and the remedy.
        """
        if not self.integer:
            return
        for path, layer in walk(model):
            for name in REQUIRED.get(layer.kind, ()):
                if not isinstance(getattr(layer, name), Slot):
                    raise ValueError(
                        f"target={self.name} is integer throughout, but the {name} of layer "
                        f"{path!r} stays float; choose a quantizer for it, or target=academic"
                    )
            if "weight" in layer.slots:
                self._check_weights(path, layer)
        try:
            integerize(model, pixels, shape, self.rounding)
        except ValueError as error:
            raise ValueError(f"target={self.name}: {error}") from error

    def _check_weights(self, path: str, layer: Any) -> None:
        terms = layer.weight.encode(folded_kernel(layer)).terms
        label = layer.weight.quantizer.label
        if len(terms) > 1:
            raise ValueError(
                f"target={self.name} has one scale a weight, but {label} gives layer {path!r} "
                f"{len(terms)} of them; choose another weight quantizer"
            )
        least, most = _reach(terms[0])
        if least < self.weights[0] or most > self.weights[1]:
            low, high = self.weights
            raise ValueError(
                f"target={self.name} holds weights as integers from {low} to {high} around a real "
                f"zero of 0, but {label} gives layer {path!r} integers from {least} to {most}; "
                "choose fewer w_bits, or a symmetric quantizer (weight=minmax)"
            )


def _reach(term: IntegerTerm) -> tuple[int, int]:
    """Least and largest weight relative to real zero; doubled where that is a half-integer."""
    zero = term.zero_point.value
    double = 1 if np.all(zero == np.round(zero)) else 2
    return int(np.min(double * (term.low - zero))), int(np.max(double * (term.high - zero)))


def check_words(words: Sequence[str], target: str | None) -> None:
    """Raise when a command line asks for what its target decides.

    Args:
        words: `key=value` as typed.
        target: name of the chosen target, None for none.

    Raises:
        ValueError: naming the word and what to say instead.
    """
    for word in words if target else ():
        key = word.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] == "recipe" or key in ("run.policy", "pixels"):
            own = "target.policy" if key == "run.policy" else "target.recipe..."
            raise ValueError(
                f"target={target} decides what {word} asks for; leave one of them out, or change "
                f"the target itself ({own}=...)"
            )
