"""Recipes: ordered rules that say which quantizer goes where.

A rule matches layers by path and kind and sets quantizers for slots. For each slot of each layer
the first matching rule that sets it wins. A weight or an activation that no rule sets is an error,
and so is a rule that decides nothing.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Sequence
from typing import Literal

from qjax.core.quantizer import Quantizer
from qjax.probe import Call

WEIGHTED = ("conv", "dense")
KINDS = ("conv", "dense", "norm", "act", "add", "concat", "pool", "shape")
REQUIRED = {"conv": ("weight",), "dense": ("weight",), "act": ("output",)}
"""Slots that some rule must set (to `NoQuantizer`, where float is meant)."""

ROLES: dict[str, Literal["weight", "activation", "error"]] = {
    "weight": "weight",
    "input": "activation",
    "output": "activation",
    "error": "error",
}
"""What kind of tensor each slot quantizes."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """Which quantizers the matching layers get.

    Attributes:
        match: a glob over dotted paths ("blocks.*.conv1"), or "first" or "last": the first and last
            layer with weights in execution order.
        kind: restrict to layers of this kind (one of `KINDS`); "" for any.
        pending: restrict to layers whose integer result no activation rounds directly: sums before
            an addition or a pooling, additions that fork, averages, logits.
        weight: for conv and dense.
        input: for conv and dense: quantize what the layer receives.
        output: for activations; for other layers only when `kind` names them, or `pending` is set
            (TFLite-like placement).
        error: for conv and dense: quantize the gradient with respect to the product, before BN
            (DoReFa); for activations only when `kind` names them: the gradient between function
            and output quantizer (WAGE).
    """

    match: str = "*"
    kind: str = ""
    weight: Quantizer | None = None
    input: Quantizer | None = None
    output: Quantizer | None = None
    error: Quantizer | None = None
    pending: bool = False

    def __post_init__(self) -> None:
        if self.kind and self.kind not in KINDS:
            raise ValueError(f"Rule.kind must be one of {KINDS} or empty, got {self.kind!r}")
        for slot, role in ROLES.items():
            quantizer = getattr(self, slot)
            if quantizer is not None and role not in quantizer.roles:
                raise ValueError(
                    f"Rule.{slot} got {type(quantizer).__name__}, which serves "
                    f"{', '.join(quantizer.roles)}; "
                    f"choose a quantizer for the role {role}"
                )
        if not any(getattr(self, slot) for slot in ROLES):
            raise ValueError(
                f"Rule(match={self.match!r}) sets no quantizer; set weight, input, output or error"
            )

    def sets(self, call: Call, ends: tuple[str, str], slot: str) -> bool:
        """Whether this rule decides `slot` of the called layer."""
        if (
            getattr(self, slot) is None
            or slot not in call.layer.slots
            or not self.matches(call, ends)
        ):
            return False
        usual = {"output": ("act",), "error": WEIGHTED}.get(slot, (call.layer.kind,))
        named = self.kind == call.layer.kind or (self.pending and slot == "output")
        return call.layer.kind in usual or named

    def matches(self, call: Call, ends: tuple[str, str]) -> bool:
        """Whether path and kind fit."""
        if self.kind and call.layer.kind != self.kind:
            return False
        if self.pending and (call.into_act or not call.layer.pending):
            return False
        if self.match in ("first", "last"):
            return call.path == ends[self.match == "last"]
        return fnmatch.fnmatchcase(call.path, self.match)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """An ordered tuple of rules.

    Attributes:
        rules: kept as a tuple; first match wins, slot by slot.
        name: for the record.
        keeps_sign: whether a quantizer of an input whose codes begin at zero is an error where the
            sample has values below zero, which it would lose.
    """

    rules: Sequence[Rule]
    name: str = "custom"
    keeps_sign: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(self.rules))

    def resolve(self, calls: list[Call]) -> dict[tuple[str, str], Quantizer]:
        """(path, slot) -> quantizer for a probed model.

        Raises:
            ValueError: a required slot that no rule sets, or a rule that decides nothing.
        """
        ends = first_and_last(calls)
        chosen: dict[tuple[str, str], Quantizer] = {}
        useful: set[Rule] = set()
        for call in calls:
            for slot in call.layer.slots:
                rule = next((r for r in self.rules if r.sets(call, ends, slot)), None)
                if rule is not None:
                    chosen[call.path, slot] = getattr(rule, slot)
                    useful.add(rule)
                elif slot in REQUIRED.get(call.layer.kind, ()):
                    raise ValueError(
                        f"no rule sets the {slot} of layer {call.path!r} ({call.layer.kind}); add "
                        f"a rule that matches "
                        f"it, with NoQuantizer where it shall stay float"
                    )
        for rule in self.rules:
            if rule not in useful:
                paths = ", ".join(call.path for call in calls)
                raise ValueError(
                    f"rule {rule.match!r}{f' (kind {rule.kind})' if rule.kind else ''} decides "
                    f"nothing: no layer "
                    f"matches, or earlier rules decided already; layers are: {paths}"
                )
        return chosen


def first_and_last(calls: Iterable[Call]) -> tuple[str, str]:
    """Paths of the first and the last layer with weights, in execution order."""
    weighted = [call.path for call in calls if call.layer.kind in WEIGHTED]
    if not weighted:
        raise ValueError("the model has no layer with weights; recipes need a conv or dense layer")
    return weighted[0], weighted[-1]


def ends_float(weight: Quantizer, act: Quantizer, keep: Quantizer) -> Recipe:
    """First and last layer keep float weights, as in DoReFa, PACT and WRPN.

    Args:
        weight, act: quantizers of the body; the first layer's output is quantized like the others.
        keep: what "float" is spelled as (`NoQuantizer()`).
    """
    ends = (Rule("first", weight=keep), Rule("last", weight=keep))
    return Recipe((*ends, Rule(weight=weight, output=act)), "ends_float")


def conv_inputs(weight: Quantizer, act: Quantizer, keep: Quantizer) -> Recipe:
    """Float ends, and every other layer with weights quantizes what it receives and nothing else.

    A residual sum and its activation keep their precision on the shortcut, where `ends_float`
    rounds and clips them: what wrappers of convolutions do (most re-runs of DoReFa and LSQ), and
    what pre-activation networks do by themselves. A layer behind none, as MobileNetV2's expansions,
    needs a quantizer that keeps the sign.

    Args:
        weight, act: quantizers of the body and of what its layers receive.
        keep: what "float" is spelled as (`NoQuantizer()`).
    """
    ends = tuple(Rule(end, weight=keep, input=keep) for end in ("first", "last"))
    between = Rule(kind="act", input=keep, output=keep)
    return Recipe((*ends, between, Rule(weight=weight, input=act)), "conv_inputs", keeps_sign=True)


def ends_8bit(
    weight: Quantizer, act: Quantizer, end_weight: Quantizer, end_input: Quantizer
) -> Recipe:
    """First and last layer, and what they receive, at 8 bits, so that the whole network is integer.

    Args:
        weight, act: quantizers of the body.
        end_weight, end_input: quantizers of the two ends (8-bit affine).
    """
    ends = tuple(Rule(end, weight=end_weight, input=end_input) for end in ("first", "last"))
    return Recipe((*ends, Rule(weight=weight, output=act)), "ends_8bit")


def all_layers(
    weight: Quantizer, act: Quantizer, first_input: Quantizer, last_input: Quantizer
) -> Recipe:
    """Every layer alike; only what the first and the last layer receive has its own quantizers.

    Args:
        weight, act: quantizers everywhere.
        first_input: of the image. last_input: of the features before the classifier.
    """
    ends = (Rule("first", input=first_input), Rule("last", input=last_input))
    return Recipe((*ends, Rule(weight=weight, output=act)), "all")


def deployable(
    weight: Quantizer,
    act: Quantizer,
    end_weight: Quantizer,
    image: Quantizer,
    between: Quantizer,
) -> Recipe:
    """Every tensor that a runtime's operator reads or writes lies on one grid, the logits too.

    A convolution, an addition or an average that no activation rounds has a quantizer of its own;
    one that an activation follows shares the activation's, as runtimes fuse them.

    Args:
        weight, act: quantizers of the body.
        end_weight: of the first and the last layer.
        image: of what the network receives.
        between: of the sums that no activation rounds.
    """
    ends = (Rule("first", weight=end_weight, input=image), Rule("last", weight=end_weight))
    return Recipe(
        (*ends, Rule(output=between, pending=True), Rule(weight=weight, output=act)), "deployable"
    )
