"""The probe pass: run a copy of a model once to see its layers' order, calls, shapes and float
tensors.
"""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array

from qjax.layers.layer import Layer
from qjax.tree import check_unshared, walk, wrap_layers


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer in execution order.

    Attributes:
        path: where the layer stands in the model.
        layer: the layer of the probed model.
        inputs, output: float arrays with the sample's batch axis.
    """

    path: str
    layer: Layer
    inputs: tuple[Array, ...]
    output: Array


def probe(model: nnx.Module, sample: Array) -> list[Call]:
    """Run `model` on `sample` in training mode (batch statistics, state untouched) and log every
    layer call.

    Training mode, because a fresh network's running statistics do not normalize yet.

    Args:
        model: any module made of `qjax.layers`.
        sample: a batch of model inputs, (n, h, w, c).

    Raises:
        ValueError: a layer object in two places; a layer called twice; a layer never called.
    """
    layers = dict(walk(model))
    if not layers:
        raise ValueError(f"{type(model).__name__} holds no qjax layer; build it from qjax.layers")
    check_unshared(layers)
    graph, state = nnx.split(model)
    order: list[str] = []

    def run(state: nnx.State, x: Array) -> list[tuple[tuple[Array, ...], Array]]:
        log = []

        def call(path: str, layer: nnx.Module, inputs: tuple) -> object:
            output = layer(*inputs)  # pyright: ignore[reportCallIssue]
            order.append(path)
            log.append((inputs, output))
            return output

        copy = nnx.merge(graph, state, copy=True)
        copy.train()
        wrap_layers(copy, call)
        copy(x)
        return log

    log = jax.jit(run)(state, sample)
    _check_calls(order, layers)
    return [
        Call(path, layers[path], inputs, output)
        for path, (inputs, output) in zip(order, log, strict=True)
    ]


def _check_calls(order: list[str], layers: dict[str, Layer]) -> None:
    for path in order:
        if order.count(path) > 1:
            raise ValueError(
                f"layer {path!r} is called {order.count(path)} times and would share its "
                f"quantizers between the calls; "
                "construct a layer for each call"
            )
    for path in layers:
        if path not in order:
            raise ValueError(
                f"layer {path!r} is never called by the model's __call__; remove it or call it"
            )
