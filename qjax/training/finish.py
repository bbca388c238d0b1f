"""The end of a run: three accuracies side by side, and everything else a record holds."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from flax import nnx

from qjax.agreement import Agreement, compare
from qjax.floatfree import check_float_free
from qjax.integerize import IntegerNetwork, integerize
from qjax.layers.linear import IntegerLinear
from qjax.surgery import LayerRow, layer_table
from qjax.training.devices import Devices
from qjax.training.gradient_bits import gradient_bits
from qjax.training.spec import RunSpec


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What evaluation of a trained network found; the parts of a record that it fills.

    Attributes:
        accuracy: float, simulated, integer, as fractions or None.
        agreement, integer: as in `result.json`.
        layers: the layer table, one mapping a row.
        bit_operations: sum of MACs x weight bits x input bits over the integer layers.
    """

    accuracy: dict[str, float | None]
    agreement: dict[str, Any]
    integer: dict[str, Any]
    layers: list[dict[str, Any]]
    bit_operations: int | None


def evaluate_float(spec: RunSpec, model: nnx.Module, accuracy: float) -> Outcome:
    """The outcome of a run that never quantized anything."""
    rows = layer_table(model, spec.sample())
    weighted = [row for row in rows if row.weights]
    integer = {
        "float_free": False,
        "float_layers": [row.path for row in weighted],
        "weight_bytes": sum(row.weight_bytes for row in rows),
        "accumulator_bits": {},
        "policy": None,
    }
    values = {"float": accuracy, "simulated": None, "integer": None}
    layers = [dataclasses.asdict(row) for row in rows]
    return Outcome(values, {"predictions": None, "codes": {}}, integer, layers, None)


def evaluate(spec: RunSpec, model: nnx.Module, float_accuracy: float | None) -> Outcome:
    """Simulated and integer accuracy of a quantized model on the held-out split.

    A network in which every layer with weights computes in float has no integer form to measure.

    Raises:
        ValueError: a layer that has no integer form.
        AssertionError: a float in the integer part; that would be a defect of qjax.
    """
    data, settings = spec.data, spec.settings
    network = integerize(model, spec.pixels, data.shape, settings.policy)
    floats = check_float_free(network, data.shape)
    rows = layer_table(model, spec.sample())
    agreement = compare(model, network, data.test_batches(settings.eval_batch))
    right = [
        float(np.mean(classes == data.test_labels))
        for classes in (agreement.simulated_classes, agreement.integer_classes)
    ]
    some = bool(_linear(network))
    policy_name = settings.policy_name if some else None
    return Outcome(
        accuracy={
            "float": float_accuracy,
            "simulated": right[0],
            "integer": right[1] if some else None,
        },
        agreement=_agreement(agreement) if some else {"predictions": None, "codes": {}},
        integer=_integer_part(rows, network, some and not floats) | {"policy": policy_name},
        layers=_layers(rows, network),
        bit_operations=_bit_operations(rows, network),
    )


def result(
    spec: RunSpec, model: nnx.Module, outcome: Outcome, seconds: float, devices: Devices
) -> dict[str, Any]:
    """The fields of `result.json` that this run knows."""
    data = spec.data
    return {
        **spec.names,
        "w_bits": spec.w_bits,
        "a_bits": spec.a_bits,
        **gradient_bits(spec, model),
        "seed": spec.seed,
        "epochs": sum(phase.epochs for phase in spec.phases),
        "accuracy": outcome.accuracy,
        "agreement": outcome.agreement,
        "integer": outcome.integer,
        "bit_operations": outcome.bit_operations,
        "seconds": round(seconds, 3),
        "device": devices.name,
        "references": spec.references(model),
        "data_source": {"source": data.source, "sha256": data.sha256, "licence": data.licence},
    }


def _agreement(agreement: Agreement) -> dict[str, Any]:
    equal = {place: 1 - share for place, share in agreement.differing.items()}
    return {"predictions": agreement.predictions, "codes": equal}


def _linear(network: IntegerNetwork) -> dict[str, IntegerLinear]:
    twins = network.twins().items()
    return {path: twin for path, twin in twins if isinstance(twin, IntegerLinear)}


def _integer_part(
    rows: list[LayerRow], network: IntegerNetwork, float_free: bool
) -> dict[str, Any]:
    linear = _linear(network)
    left = sum(row.weight_bytes for row in rows if row.path in network.float_layers)
    return {
        "float_free": float_free,
        "float_layers": list(network.float_layers),
        "weight_bytes": sum(twin.weight_bytes for twin in linear.values()) + left,
        "accumulator_bits": {path: max(twin.accumulator_bits) for path, twin in linear.items()},
    }


def _layers(rows: list[LayerRow], network: IntegerNetwork) -> list[dict[str, Any]]:
    linear = _linear(network)
    bits = {path: max(twin.accumulator_bits) for path, twin in linear.items()}
    return [dataclasses.asdict(row) | {"accumulator_bits": bits.get(row.path)} for row in rows]


def _bit_operations(rows: list[LayerRow], network: IntegerNetwork) -> int | None:
    if network.float_layers:
        return None
    macs = {row.path: row.macs for row in rows}
    linear = _linear(network).items()
    return sum(macs[path] * twin.weight_bits * twin.operand_bits for path, twin in linear)
