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


class _Watched(nnx.Module):
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


def slot_statistics(slot: Slot, x: Float[Array, "..."]) -> dict[str, Array]:
    """Numbers of one quantizer on one tensor.

    Returns:
        `sqnr_db`: 10 log10(mean x^2 / mean (x - y)^2), of the values inside the range of the float
        function; `clipped`: share of elements beyond the grid's ends by more than half a step;
        `zeros`: share of elements that become real zero; `levels`: distinct codes used; and each
        learned number or statistic under its own name (its mean, when it is an array).
    """
    values = slot.values()
    terms = slot.quantizer.codes(values, x)
    y = decode_terms(terms)
    # A quantizer that replaces the ReLU is not at fault for the negative half.
    signal = jnp.maximum(x, 0) if slot.quantizer.rectifies else x
    noise = jnp.mean(jnp.square(signal - y))
    term = terms[0]
    ends = [term.scale * (end - term.zero_point) for end in (term.low, term.high)]
    half = term.scale / 2
    clipped = (signal < ends[0] - half) | (signal > ends[1] + half)
    codes = (term.codes - term.low).astype(jnp.int32).ravel()
    used = jnp.zeros(256, bool).at[jnp.clip(codes, 0, 255)].set(True)
    report = {
        "sqnr_db": 10
        * jnp.log10(jnp.maximum(jnp.mean(jnp.square(signal)), 1e-30) / jnp.maximum(noise, 1e-30)),
        "clipped": jnp.mean(clipped),
        "zeros": jnp.mean(y == 0),
        "levels": jnp.sum(used),
    }
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

            swap(model, place, _Watched(slot, see))
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
