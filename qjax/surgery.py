"""`quantize`: bind quantizers to the slots of a copy of a float model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, PRNGKeyArray

from qjax.core.quantizer import Quantizer, Role
from qjax.layers.slots import ErrorSlot, Slot
from qjax.probe import Call, probe
from qjax.recipe import ROLES, Recipe
from qjax.tree import walk


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """One line of the layer table.

    Attributes:
        path, kind: the layer.
        quantizers: slot -> class name, for the slots that are quantized.
        bits: slot -> bit width.
        output_shape: without the batch axis.
        macs: multiply-accumulates for one sample.
        weights: number of weights.
        weight_bytes: at the width of their codes (4 a weight in float).
    """

    path: str
    kind: str
    quantizers: dict[str, str]
    bits: dict[str, int]
    output_shape: tuple[int, ...]
    macs: int
    weights: int
    weight_bytes: int


def quantize(model: nnx.Module, recipe: Recipe, sample: Array, seed: int = 0) -> nnx.Module:
    """A copy of `model` whose slots simulate the recipe's quantizers; the model itself is left as
    it is.

    Args:
        model: built from `qjax.layers`, with or without trained weights.
        recipe: which quantizer goes where.
        sample: a batch of real inputs (n, h, w, c), from which data-dependent first numbers come.
        seed: of the noise of stochastic quantizers, each with a random stream of its own.

    Raises:
        ValueError: see `probe` and `Recipe.resolve`; raised before anything is changed.

    Example:
        >>> from qjax.methods.affine import AffineActivation, AffineWeight
        >>> from qjax.models.small import SmallCNN
        >>> from qjax.recipe import all_layers
        >>> ends = AffineActivation(8), AffineActivation(8)
        >>> recipe = all_layers(AffineWeight(4), AffineActivation(4), *ends)
        >>> net = quantize(SmallCNN(rngs=nnx.Rngs(0)), recipe, jax.numpy.ones((2, 8, 8, 1)))
        >>> net(jax.numpy.ones((2, 8, 8, 1))).shape
        (2, 10)
    """
    calls = probe(model, sample)
    chosen = recipe.resolve(calls)
    tensors = {call.path: call for call in calls}
    copy = nnx.clone(model)
    layers = dict(walk(copy))
    for index, ((path, slot), quantizer) in enumerate(chosen.items()):
        if not getattr(quantizer, "is_float", False):
            key = jax.random.fold_in(jax.random.key(seed), index)
            setattr(layers[path], slot, _bind(quantizer, slot, tensors[path], key))
    return copy


def _bind(quantizer: Quantizer, slot: str, call: Call, key: PRNGKeyArray) -> Slot | ErrorSlot:
    source: dict[str, Callable[[], Array]] = {
        "weight": lambda: call.layer.kernel[...],  # pyright: ignore[reportAttributeAccessIssue]
        "input": lambda: call.inputs[0],
        # An activation's quantizer sees what its float function would hand it.
        "output": lambda: call.output,
        # No gradient has been seen yet.
        "error": lambda: jax.numpy.zeros_like(call.output),
    }
    x = source[slot]()
    kind = ROLES[slot]
    features = int(np.prod(x.shape if kind == "weight" else x.shape[1:]))
    bound = Slot(quantizer, quantizer.init(x, Role(kind, features)), key)
    return ErrorSlot(bound) if slot == "error" else bound


def slots(model: nnx.Module) -> dict[str, Slot]:
    """Every quantizer of weights and activations: "path.slot" -> `Slot`, in order of definition."""
    return {place: slot for place, slot in _bindings(model) if isinstance(slot, Slot)}


def error_slots(model: nnx.Module) -> dict[str, Slot]:
    """Every quantizer of gradients: "path.error" -> `Slot`, in order of definition."""
    return {place: slot.slot for place, slot in _bindings(model) if isinstance(slot, ErrorSlot)}


def _bindings(model: nnx.Module) -> Iterator[tuple[str, nnx.Module]]:
    for path, layer in walk(model):
        yield from ((f"{path}.{name}", getattr(layer, name)) for name in layer.slots)


def layer_table(model: nnx.Module, sample: Array) -> list[LayerRow]:
    """The resolved table of a (float or simulated) model, in execution order."""
    return [_row(call) for call in probe(model, sample)]


def _row(call: Call) -> LayerRow:
    layer = call.layer
    slots = {name: getattr(layer, name) for name in layer.slots}
    bound = {name: s.slot if isinstance(s, ErrorSlot) else s for name, s in slots.items()}
    bound = {name: slot for name, slot in bound.items() if isinstance(slot, Slot)}
    bits = {
        name: int(slot.values()["bits"]) for name, slot in bound.items() if "bits" in slot.values()
    }
    weights = int(np.prod(layer.kernel.shape)) if "weight" in layer.slots else 0  # pyright: ignore
    return LayerRow(
        path=call.path,
        kind=layer.kind,
        quantizers={name: type(slot.quantizer).__name__ for name, slot in bound.items()},
        bits=bits,
        output_shape=tuple(call.output.shape[1:]),
        macs=layer.macs(call.output.shape),
        weights=weights,
        weight_bytes=(weights * bits.get("weight", 32) + 7) // 8,
    )


def format_table(rows: list[LayerRow]) -> str:
    """The layer table as fixed-width text."""
    head = ("layer", "kind", "output", "weight", "input", "output q.", "MACs", "bytes")
    lines = [head]
    for row in rows:
        cells = [
            f"{row.quantizers[s]}:{row.bits.get(s, '?')}" if s in row.quantizers else "-"
            for s in ("weight", "input", "output")
        ]
        shape = "x".join(map(str, row.output_shape))
        lines.append((row.path, row.kind, shape, *cells, f"{row.macs:,}", f"{row.weight_bytes:,}"))
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def penalty(model: nnx.Module) -> Array:
    """Sum of the methods' own loss terms (PACT's decay of alpha)."""
    total = jax.numpy.zeros(())
    for slot in slots(model).values():
        total = total + slot.penalty()
    return total
