"""`quantize`: bind quantizers to the slots of a copy of a float model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, PRNGKeyArray

from qjax.core.quantizer import Quantizer, Role
from qjax.layers.affine_norm import Norm
from qjax.layers.layer import Layer
from qjax.layers.norm import BatchNorm
from qjax.layers.slots import ErrorSlot, FloatSlot, Slot, Watched
from qjax.probe import Call, probe
from qjax.recipe import ROLES, Recipe
from qjax.tree import swap, walk


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
        key = jax.random.fold_in(jax.random.key(seed), index)
        bound = FloatSlot() if quantizer.is_float else _bind(quantizer, slot, tensors[path], key)
        if recipe.keeps_sign and slot == "input" and isinstance(bound, Slot):
            _check_sign(bound, tensors[path], recipe.name)
        setattr(layers[path], slot, bound)
    return copy


def requantize(model: nnx.Module, recipe: Recipe, sample: Array, seed: int = 0) -> nnx.Module:
    """A copy of a simulated model under another recipe (fewer bits, other quantizers).

    A slot whose quantizer and traced numbers stay the same keeps its learned numbers and
    statistics; any other starts anew from the sample.

    Args and errors as `quantize`.
    """
    copy = quantize(model, recipe, sample, seed)
    before = dict(_bindings(nnx.clone(model)))
    for place, bound in dict(_bindings(copy)).items():
        old = before[place]
        if isinstance(bound, Slot) and isinstance(old, Slot) and _same(bound, old):
            swap(copy, place, old)
    return copy


def _same(a: Slot, b: Slot) -> bool:
    traced = [
        {k: v for k, v in s.values().items() if s.quantizer.kinds[k] == "traced"} for s in (a, b)
    ]
    return a.quantizer == b.quantizer and all(
        np.array_equal(value, traced[1][name]) for name, value in traced[0].items()
    )


def fold_batch_norm(model: nnx.Module, make: Callable[[BatchNorm], nnx.Module]) -> nnx.Module:
    """A copy of `model` whose convolutions and dense layers meet batch normalization another way.

    Args:
        model: float, so that quantizers find their first numbers from folded weights.
        make: `qjax.layers.norm.FoldedFrozen` or `FoldedCorrected`, which fold it into the weights,
            or a separate one, such as `ShiftNorm`, which also takes the place of those that stand
            alone.

    Raises:
        ValueError: nothing can be folded.
    """
    copy = nnx.clone(model)
    normed = [
        layer for _, layer in walk(copy) if isinstance(getattr(layer, "norm", None), BatchNorm)
    ]
    folds = getattr(make, "folds", True)
    if folds and not normed:
        raise ValueError(
            f"{type(model).__name__} has no ConvBN or DenseBN whose normalization could be folded; "
            "choose bn=separate"
        )
    for layer in normed:
        layer.norm = make(layer.norm)  # pyright: ignore[reportAttributeAccessIssue]
    for _, layer in walk(copy):
        if not folds and isinstance(layer, Norm) and isinstance(layer.statistics, BatchNorm):
            layer.statistics = make(layer.statistics)  # pyright: ignore[reportAttributeAccessIssue]
    return copy


def watch(model: nnx.Module, tensors: Iterable[str]) -> nnx.Module:
    """A copy of a simulated model in which these tensors stay float, their statistics followed.

    Args:
        model: what `quantize` or an earlier `watch` returned.
        tensors: "weight" and "activation", either, both or none: the rest is quantized.
    """
    copy = nnx.clone(model)
    for place, bound in dict(_bindings(copy)).items():
        slot = bound.watched if isinstance(bound, Watched) else bound
        if isinstance(slot, Slot) and ROLES[place.rpartition(".")[2]] in tensors:
            slot = Watched(slot)
        swap(copy, place, slot)
    return copy


def _bind(quantizer: Quantizer, slot: str, call: Call, key: PRNGKeyArray) -> Slot | ErrorSlot:
    source: dict[str, Callable[[], Array]] = {
        "weight": lambda: folded_kernel(call.layer),
        "input": lambda: call.inputs[0],
        # An activation's quantizer sees what its float function would hand it.
        "output": lambda: call.output,
        # No gradient has been seen yet.
        "error": lambda: jax.numpy.zeros_like(call.output),
    }
    _check_scale(quantizer, slot, call)
    x = source[slot]()
    kind = ROLES[slot]
    features = int(np.prod(x.shape if kind == "weight" else x.shape[1:]))
    bound = Slot(quantizer, quantizer.init(x, Role(kind, features)), key)
    return ErrorSlot(bound) if slot == "error" else bound


def folded_kernel(layer: Layer) -> Array:
    """What the weight quantizer of a layer with weights receives."""
    kernel = layer.kernel[...]  # pyright: ignore[reportAttributeAccessIssue]
    norm = getattr(layer, "norm", None)
    return kernel if norm is None else norm.folded(kernel)


def _check_scale(quantizer: Quantizer, slot: str, call: Call) -> None:
    folded = getattr(getattr(call.layer, "norm", None), "folds", False)
    if slot == "weight" and folded and quantizer.rescales:
        raise ValueError(
            f"layer {call.path!r}: {quantizer.label} gives weights another magnitude, "
            "which folded batch normalization cannot undo; choose bn=separate or a quantizer that "
            "keeps it (minmax, lsq)"
        )


def _check_sign(bound: Slot, call: Call, recipe: str) -> None:
    least = float(call.inputs[0].min())
    if least < 0 and (grid := bound.grid()).low >= grid.zero_point:
        label = bound.quantizer.label
        raise ValueError(
            f"recipe {recipe}: layer {call.path!r} receives values down to {least:.3g}, but the "
            f"codes of {label} begin at zero and would lose them; choose a quantizer that keeps "
            "the sign (act=minmax), or another recipe"
        )


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
        quantizers={name: slot.quantizer.label for name, slot in bound.items()},
        bits=bits,
        output_shape=tuple(call.output.shape[1:]),
        macs=layer.macs(call.output.shape),
        weights=weights,
        weight_bytes=(weights * bits.get("weight", 32) + 7) // 8,
    )


def format_table(rows: list[LayerRow]) -> str:
    """The layer table as fixed-width text."""
    head = ("layer", "kind", "output", "weight", "input", "output q.", "MACs", "bytes")
    lines: list[tuple[str, ...]] = [head]
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
