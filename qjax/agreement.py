"""Simulated against integer: the same codes, quantizer by quantizer, over whole networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from qjax.core.codes import Codes
from qjax.floatfree import Function
from qjax.integerize import IntegerNetwork
from qjax.layers.layer import Value
from qjax.layers.slots import Encode, Requantize, Slot
from qjax.surgery import slots
from qjax.tree import get, swap

CodesByPlace = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How a simulated and an integer network compare over some images.

    Attributes:
        images: how many.
        simulated_classes, integer_classes: predictions, (images,).
        differing: place ("path.slot") -> fraction of codes that differ, end to end.
    """

    images: int
    simulated_classes: np.ndarray
    integer_classes: np.ndarray
    differing: dict[str, float]

    @property
    def predictions(self) -> float:
        """Fraction of images on which the predicted classes are equal."""
        return float(np.mean(self.simulated_classes == self.integer_classes))


def places(model: nnx.Module) -> list[str]:
    """The activation quantizers of a simulated model, as "path.slot"."""
    return [name for name in slots(model) if not name.endswith(".weight")]


def simulated_run(model: nnx.Module):
    """A compiled function: float images -> (logits, stored codes at each place)."""
    return partial(_simulated, *nnx.split(model))


# One function with the graph as an argument: it compiles once for all models of equal structure,
# whatever their weights and bits.
@partial(jax.jit, static_argnums=0)
def _simulated(graph: nnx.GraphDef, state: nnx.State, x: Array) -> tuple[Array, CodesByPlace]:
    copy = nnx.merge(graph, state, copy=True)
    copy.eval()
    log: CodesByPlace = {}
    for place in places(copy):
        swap(copy, place, Function(_logging_slot(place, get(copy, place), log)))  # pyright: ignore
    return copy(x), log


def _logging_slot(place: str, slot: Slot, log: CodesByPlace):
    def call(x: Array) -> Array:
        values = slot.values()
        (term,) = slot.quantizer.codes(values, x)
        # The container is int8 for every grid: unsigned 8-bit codes are stored shifted by 128.
        shift = jnp.where(term.high > 127, 128.0, 0.0)
        log[place] = (term.codes - shift).astype(jnp.int8)
        return slot.quantizer(values, x)

    return call


def integer_run(network: IntegerNetwork, force: bool = False):
    """A compiled function: pixels[, codes to force] -> (class, own codes, pending inputs) at each
    place.

    With `force`, each requantization computes its own codes from what simulation fed it, and hands
    simulation's codes
    on: so that one early difference does not spread, and each place is judged by itself.
    """
    graph, state = nnx.split(network)

    @jax.jit
    def run(state: nnx.State, pixels: Array, forced: CodesByPlace):
        copy = nnx.merge(graph, state, copy=True)
        own: CodesByPlace = {}
        pending: dict[str, list[Array]] = {}
        for place, twin in roundings(copy).items():
            name, where = place
            swap(
                copy.model,
                where,
                Function(_logging_rounding(name, twin, own, pending, forced if force else None)),
            )
        return copy(pixels), own, pending

    return lambda pixels, forced=None: run(state, pixels, forced or {})


def roundings(network: IntegerNetwork) -> dict[tuple[str, str], Requantize | Encode]:
    """(place as in simulation, path in the integer model) -> rounding."""
    found: dict[tuple[str, str], Requantize | Encode] = {}
    for path, twin in network.twins().items():
        if isinstance(twin, Requantize | Encode):
            found[f"{path}.output", path] = twin
        for attribute, slot in (("entry", "input"), ("exit", "output")):
            part = getattr(twin, attribute, None)
            if isinstance(part, Requantize | Encode):
                found[f"{path}.{slot}", f"{path}.{attribute}"] = part
    return found


def _logging_rounding(name, twin, own, pending, forced):
    def call(x: Codes | Array) -> Codes:
        y = twin(x)
        own[name] = y.terms[0].ints
        pending[name] = [term.ints for term in x.terms] if isinstance(x, Codes) else []
        if forced is None:
            return y
        landing = twin if isinstance(twin, Requantize) else twin.landing
        return landing.wrap(forced[name])

    return call


def compare(model: nnx.Module, network: IntegerNetwork, batches: Iterable[np.ndarray]) -> Agreement:
    """Run both networks over batches of uint8 images and count differing codes and classes.

    Memory is bounded by one batch's activations.
    """
    simulate, integer = simulated_run(model), integer_run(network)
    counts: dict[str, list[int]] = {}
    classes: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in batches:
        logits, expected = simulate(network.pixels.normalise(jnp.asarray(batch)))
        predicted, own, _ = integer(jnp.asarray(batch))
        classes.append((np.argmax(np.asarray(logits), -1), np.asarray(predicted)))
        for place, codes in own.items():
            count = counts.setdefault(place, [0, 0])
            count[0] += int(jnp.sum(codes != expected[place]))
            count[1] += codes.size
    return Agreement(
        images=sum(len(a) for a, _ in classes),
        simulated_classes=np.concatenate([a for a, _ in classes]),
        integer_classes=np.concatenate([b for _, b in classes]),
        differing={place: wrong / total for place, (wrong, total) in counts.items()},
    )


@dataclasses.dataclass(frozen=True)
class Difference:
    """One place under the integer law, each requantization fed simulation's own codes.

    Attributes:
        codes: how many were compared.
        differing: how many differ.
        distance: the largest distance of a differing value from the nearest rounding boundary, in
            steps, computed in float64 from the codes; 0 when none differs.
        saturated, levels: share of codes at the grid's ends, and how many distinct codes occur (a
            dead or saturated place would agree trivially).
    """

    codes: int
    differing: int
    distance: float
    saturated: float
    levels: int


def integer_law(
    model: nnx.Module, network: IntegerNetwork, pixels: np.ndarray
) -> dict[str, Difference]:
    """Judge every requantization of a network without float layers on one batch of images."""
    images = jnp.asarray(pixels)
    _, expected = simulated_run(model)(network.pixels.normalise(images))
    _, own, pending = integer_run(network, force=True)(images, expected)
    abstract = _pending_codes(network, images)
    result = {}
    for (place, _), twin in roundings(network).items():
        if not isinstance(twin, Requantize):
            continue
        given = _concrete(abstract[place], pending[place])
        ours, theirs = np.asarray(own[place]), np.asarray(expected[place])
        wrong = ours != theirs
        exact = twin.exact(given)[wrong]
        distance = np.abs(exact - np.floor(exact) - 0.5)
        result[place] = Difference(
            codes=ours.size,
            differing=int(wrong.sum()),
            distance=float(distance.max(initial=0.0)),
            saturated=float(np.mean((theirs == twin.low) | (theirs == twin.high))),
            levels=len(np.unique(theirs)),
        )
    return result


def _concrete(abstract: Codes, ints: list[Array]) -> Codes:
    """Pending codes with their integers."""
    terms = zip(abstract.terms, ints, strict=True)
    return dataclasses.replace(
        abstract, terms=tuple(dataclasses.replace(term, ints=value) for term, value in terms)
    )


def _pending_codes(network: IntegerNetwork, images: Array) -> dict[str, Codes]:
    """What arrives at each requantization, abstractly (scales and bounds; no data)."""
    copy = nnx.clone(network)
    seen: dict[str, Codes] = {}

    def recording(place: str, twin: Requantize | Encode):
        def call(x: Value) -> Codes:
            seen[place] = x
            return twin(x)

        return call

    for (place, where), twin in roundings(copy).items():
        swap(copy.model, where, Function(recording(place, twin)))
    jax.eval_shape(copy, images)
    return seen


__all__ = ["Agreement", "Difference", "compare", "integer_law", "places"]
