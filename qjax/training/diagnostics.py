"""What each quantizer does to its tensor: numbers for TensorBoard, the record and alarms.

All is measured at the end of an epoch on one fixed batch of training images, in evaluation mode;
the training step itself measures nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from qjax.core.codes import decode_terms
from qjax.layers.slots import Slot
from qjax.surgery import folded_kernel, penalty, slots
from qjax.training.hooks import Loss
from qjax.training.state import Graphs, TrainState
from qjax.tree import get, swap, walk, wrap_layers

Report = dict[str, dict[str, float]]
Codes = dict[str, tuple[UInt8[Array, "..."], UInt8[Array, "..."]]]

DRAWN = 2**14
"""Elements of a tensor that are looked at, where it has more: evenly spread, always the same."""
STRIDE = 7919
"""Prime, so that what is drawn does not keep to some channels."""
HIGHEST_DB = 120.0
"""Signal to noise beyond the precision of float32, reported where there is no noise at all."""
SOURCES = ("weight_rounding", "activation_rounding", "clipping")


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The state of a simulated network after an epoch.

    Attributes:
        report: "path.slot" -> numbers, see `statistics`, and for weights also
            `gradient_norm`, `changed` and `oscillating` (shares of codes that differ from those of
            the diagnosis before, and of codes that differ from it but not from the one before
            that), for learned numbers `gradient_norm_NAME`.
        sqnr_db: by source, see `SOURCES`: signal to noise, the noise averaged over quantizers.
        histograms: tag -> values, `values/PLACE` and `codes/PLACE`.
        codes: of the weights now and at the diagnosis before, for the next one.
    """

    report: Report
    sqnr_db: dict[str, float]
    histograms: dict[str, np.ndarray]
    codes: Codes


class _Seen(Slot):
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


def statistics(seen: Mapping[str, np.ndarray], is_weight: bool) -> dict[str, float]:
    """Numbers of one quantizer on one tensor.

    Args:
        seen: equally long arrays `x` (what is quantized; of a quantizer that replaces the ReLU the
            positive half), `y` (simulated) and `codes`; numbers `low`, `high`, the code range; of
            activations also `inside` (`x` clipped to the grid's ends) and `beyond` (whether x lies
            more than half a step beyond them).

    Returns:
        `sqnr_db`: 10 log10(mean x^2 / mean (x - g y)^2). For weights g is the best gain, since
        methods that rescale them (DoReFa) leave the gain to batch normalization; for activations 1.
        `effective_bits`: (sqnr_db - 1.76) / 6.02, the bits of a uniform quantizer of a full-scale
        sine that is as good.
        `entropy_bits`: of the codes, what they could be stored in. `levels`: distinct codes used.
        `dead_codes`: share of the declared codes that are not used.
        `zeros`: share of elements that become real zero.
        Of activations `clipped`: the share beyond; and `rounding_db`, `clipping_db`: signal to the
        noise within the grid's ends, and beyond them.
    """
    x, y = (seen[name].astype(np.float64) for name in ("x", "y"))
    levels, counts = np.unique(seen["codes"], return_counts=True)
    share = counts / counts.sum()
    report = {
        "levels": float(len(levels)),
        "dead_codes": 1 - len(levels) / (float(seen["high"]) - float(seen["low"]) + 1),
        "entropy_bits": float(-(share * np.log2(share)).sum()),
        "zeros": float(np.mean(y == 0)),
    }
    if is_weight:
        gain = np.sum(x * y) / (np.sum(y * y) or 1.0)
        report["sqnr_db"] = _decibels(x, x - gain * y)
    else:
        inside = seen["inside"].astype(np.float64)
        report["sqnr_db"] = _decibels(x, x - y)
        report["rounding_db"] = _decibels(x, inside - y)
        report["clipping_db"] = _decibels(x, x - inside)
        report["clipped"] = float(np.mean(seen["beyond"]))
    report["effective_bits"] = (report["sqnr_db"] - 1.76) / 6.02
    return report


def _decibels(signal: np.ndarray, noise: np.ndarray) -> float:
    powers = np.mean(np.square(signal)), np.mean(np.square(noise))
    if not powers[0]:
        return 0.0
    return float(min(HIGHEST_DB, -10 * math.log10(max(powers[1] / powers[0], 1e-30))))


def _draw(slot: Slot, x: Float[Array, "..."]) -> dict[str, Array]:
    """What `statistics` asks for, traced: elements of the tensor and what became of them."""
    terms = slot.quantizer.codes(slot.values(), x)
    term = terms[0]
    arrays = {"x": x, "y": decode_terms(terms), "codes": term.codes}
    if "weight" not in slot.quantizer.roles:
        signal = jnp.maximum(x, 0) if slot.quantizer.rectifies else x
        low, high = (term.scale * (end - term.zero_point) for end in (term.low, term.high))
        half = term.scale / 2
        beyond = (signal < low - half) | (signal > high + half)
        arrays |= {"x": signal, "inside": jnp.clip(signal, low, high), "beyond": beyond}
    if x.size > DRAWN:
        index = jnp.arange(DRAWN, dtype=jnp.int32) * STRIDE % x.size
        arrays = {name: array.ravel()[index] for name, array in arrays.items()}
    ends = {"low": jnp.asarray(term.low), "high": jnp.asarray(term.high)}
    return {name: array.ravel() for name, array in arrays.items()} | ends


def weight_codes(model: nnx.Module) -> dict[str, UInt8[Array, "..."]]:
    """Codes of every quantized weight, counted from the least, one array of all terms."""
    found = {}
    for path, layer in walk(model):
        slot = getattr(layer, "weight", None)
        if isinstance(slot, Slot):
            terms = slot.quantizer.codes(slot.values(), folded_kernel(layer))
            codes = jnp.stack([jnp.clip(term.codes - term.low, 0, 255) for term in terms])
            found[f"{path}.weight"] = codes.astype(jnp.uint8)
    return found


def first_codes(graphs: Graphs, state: TrainState) -> Codes:
    """The codes of the weights, as if they had been the same an epoch ago."""
    codes = _codes(graphs.evaluate, state.trainable, state.rest)
    return {place: (now, jnp.copy(now)) for place, now in codes.items()}


# One function with the graph as an argument: it compiles once for all models of equal structure,
# whatever their weights and bits.
@partial(jax.jit, static_argnums=0)
def _codes(graph: nnx.GraphDef, trainable: Any, rest: Any) -> dict[str, UInt8[Array, "..."]]:
    return weight_codes(nnx.merge(graph, trainable, rest, copy=True))


def make_diagnosis(graphs: Graphs, loss: Loss) -> Callable[[TrainState, Array, Array], Diagnosis]:
    """A compiled function: (state with codes, float images, labels) -> diagnosis.

    Args:
        graphs: of a simulated model.
        loss: whose gradients are measured, penalties added.
    """

    @jax.jit
    def look(state: TrainState, x: Array, y: Array) -> tuple[Any, Any, Any, Any]:
        def forward(trainable: Any) -> tuple[Array, tuple[Any, Any]]:
            model: Any = nnx.merge(graphs.evaluate, trainable, state.rest, copy=True)
            codes = weight_codes(model)
            extra = penalty(model)
            drawn = _watch(model)
            return loss(model(x), y) + extra, (drawn, codes)

        gradients, (drawn, codes) = jax.grad(forward, has_aux=True)(state.trainable)
        motion = {
            place: {
                "changed": jnp.mean(now != state.codes[place][0]),
                "oscillating": jnp.mean(
                    (now == state.codes[place][1]) & (now != state.codes[place][0])
                ),
            }
            for place, now in codes.items()
        }
        return drawn, _norms(gradients), motion, codes

    def run(state: TrainState, x: Array, y: Array) -> Diagnosis:
        *found, codes = look(state, x, y)
        drawn, norms, motion = jax.device_get(found)
        model = nnx.merge(graphs.evaluate, state.trainable, state.rest)
        report = {}
        for place, slot in slots(model).items():
            report[place] = statistics(drawn[place], "weight" in slot.quantizer.roles)
            report[place] |= _numbers(slot) | jax.tree.map(float, motion.get(place, {}))
        for (place, name), value in norms.items():
            if place in report:
                report[place][name] = float(value)
        histograms = {f"values/{place}": row["x"] for place, row in drawn.items()}
        histograms |= {f"codes/{place}": row["codes"] for place, row in drawn.items()}
        history = {place: (now, state.codes[place][0]) for place, now in codes.items()}
        return Diagnosis(report, by_source(report), histograms, history)

    return run


def _numbers(slot: Slot) -> dict[str, float]:
    """Learned numbers and statistics under their own names, and the share of weights that are held
    at their codes; of arrays the mean.
    """
    kinds = slot.quantizer.kinds
    return {
        name: float(np.mean(value))
        for name, value in slot.values().items()
        if kinds[name] in ("learned", "statistic") or name == "held"
    }


def _watch(model: nnx.Module) -> dict[str, dict[str, Array]]:
    """Let every quantizer of a model report while it runs; the dict fills then."""
    drawn: dict[str, dict[str, Array]] = {}
    for place in slots(model):
        slot = get(model, place)
        assert isinstance(slot, Slot)

        def see(x: Array, place: str = place, slot: Slot = slot) -> None:
            drawn[place] = jax.lax.stop_gradient(_draw(slot, x))

        swap(model, place, _Seen(slot, see))
    return drawn


def _norms(gradients: Any) -> dict[tuple[str, str], Array]:
    """(place, name) -> norm of every kernel's and every learned number's gradient."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        words = jax.tree_util.keystr(path, simple=True, separator="/").split("/")[:-1]
        norm = jnp.sqrt(jnp.sum(jnp.square(leaf)))
        if words[-1] == "kernel":
            found[".".join([*words[:-1], "weight"]), "gradient_norm"] = norm
        elif "numbers" in words:
            place = ".".join(words[: words.index("numbers")])
            found[place, f"gradient_norm_{words[-1]}"] = norm
    return found


def by_source(report: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Signal to noise in dB by source of noise: the mean noise-to-signal ratio of all quantizers.

    Args:
        report: of `statistics`, by place.
    """
    fields = (("weight", "sqnr_db"), ("activation", "rounding_db"), ("activation", "clipping_db"))
    found = {}
    for source, (kind, field) in zip(SOURCES, fields, strict=True):
        rows = [r for place, r in report.items() if place.endswith(".weight") == (kind == "weight")]
        noise = [10 ** (-row[field] / 10) for row in rows if field in row]
        if noise:
            found[source] = -10 * math.log10(float(np.mean(noise)))
    return found


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
