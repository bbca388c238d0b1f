"""What each quantizer does to its tensor: numbers for TensorBoard, the record and alarms."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from qjax.core.codes import decode_terms
from qjax.layers.slots import Slot
from qjax.surgery import slots
from qjax.tree import get, swap, wrap_layers

Report = dict[str, dict[str, float]]


class _Logged(Slot):
    """A slot that also hands each tensor it sees to a log."""

    def __init__(self, slot: Slot, see: Callable[[Array], None]):
        self.slot = slot
        self.quantizer = slot.quantizer
        self.see = see

    def __call__(self, x: Array) -> Array:
        self.see(x)
        return self.slot(x)

    def linear(self, op: Callable[[Array, Array], Array], x: Array, w: Array) -> Array:
        self.see(w)
        return self.slot.linear(op, x, w)


def _decibels(signal: Array, noise: Array) -> Array:
    power = jnp.mean(jnp.square(signal))
    return 10 * jnp.log10(
        jnp.maximum(power, 1e-30) / jnp.maximum(jnp.mean(jnp.square(noise)), 1e-30)
    )


def slot_statistics(slot: Slot, x: Float[Array, "..."]) -> dict[str, Array]:
    """Numbers of one quantizer on one tensor.

    Returns:
        `sqnr_db`: 10 log10(mean x^2 / mean (x - g y)^2). For weights g is the best gain, since
        methods that rescale them (DoReFa) leave the gain to batch normalization; for activations 1,
        and of a quantizer that replaces the ReLU the positive half counts.
        `clipped`, of activations: share beyond the grid's ends by more than half a step.
        `zeros`: share of elements that become real zero. `levels`: distinct codes used. And each
        learned number or statistic under its own name (its mean, when it is an array).
    """
    values = slot.values()
    terms = slot.quantizer.codes(values, x)
    y = decode_terms(terms)
    term = terms[0]
    codes = (term.codes - term.low).astype(jnp.int32).ravel()
    used = jnp.zeros(256, bool).at[jnp.clip(codes, 0, 255)].set(True)
    report = {"zeros": jnp.mean(y == 0), "levels": jnp.sum(used)}
    if "weight" in slot.quantizer.roles:
        gain = jnp.sum(x * y) / jnp.maximum(jnp.sum(jnp.square(y)), 1e-30)
        report["sqnr_db"] = _decibels(x, x - gain * y)
    else:
        signal = jnp.maximum(x, 0) if slot.quantizer.rectifies else x
        low, high = (term.scale * (end - term.zero_point) for end in (term.low, term.high))
        half = term.scale / 2
        report["sqnr_db"] = _decibels(signal, signal - y)
        report["clipped"] = jnp.mean((signal < low - half) | (signal > high + half))
    for name, kind in slot.quantizer.kinds.items():
        if kind != "traced":
            report[name] = jnp.mean(values[name])
    return report


def make_diagnosis(graph: nnx.GraphDef) -> Callable[[tuple, Array], Report]:
    """A compiled function: (states, float images) -> statistics of every quantizer.

    Args:
        graph: evaluation-mode graph definition of a simulated model.
    """

    @jax.jit
    def diagnose(states: tuple, x: Array) -> dict[str, dict[str, Array]]:
        model = nnx.merge(graph, *states, copy=True)
        seen: dict[str, dict[str, Array]] = {}
        for place in slots(model):
            slot = get(model, place)
            assert isinstance(slot, Slot)

            def see(tensor: Array, place: str = place, slot: Slot = slot) -> None:
                seen[place] = slot_statistics(slot, tensor)

            swap(model, place, _Logged(slot, see))
        model(x)
        return seen

    def run(states: tuple, x: Array) -> Report:
        report = jax.device_get(diagnose(states, x))
        return {
            place: {k: float(np.asarray(v)) for k, v in row.items()}
            for place, row in report.items()
        }

    return run


def first_nonfinite(graph: nnx.GraphDef, states: tuple, x: Array) -> str | None:
    """Path of the first layer, in execution order, whose output holds NaN or infinity on `x`.

    Args:
        graph: training-mode graph definition, so that batch statistics are seen too.

    Returns:
        None when every layer's output is finite (the failure lies in the backward pass).
    """
    model = nnx.merge(graph, *states, copy=True)
    found: list[str] = []

    def look(path: str, layer: nnx.Module, inputs: tuple) -> object:
        output = layer(*inputs)  # pyright: ignore[reportCallIssue]
        if not found and not bool(jnp.all(jnp.isfinite(output))):
            found.append(path)
        return output

    wrap_layers(model, look)
    model(x)
    return found[0] if found else None
