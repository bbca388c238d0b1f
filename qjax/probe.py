"""The probe pass: run a copy of a model once to see its layers' order, calls, shapes and float
tensors.
"""

from __future__ import annotations

import dataclasses
from functools import partial

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
        into_act: whether an activation is all that reads the output, so that its rounding can be
            the layer's.
    """

    path: str
    layer: Layer
    inputs: tuple[Array, ...]
    output: Array
    into_act: bool = False


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
    copy = nnx.clone(model)
    copy.train()
    log = _logged(*nnx.split(copy), sample)
    _check_calls([seen.path for seen in log], layers)
    return [
        Call(seen.path, layers[seen.path], seen.inputs, seen.output, _into_act(seen, log, layers))
        for seen in log
    ]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["inputs", "output"],
    meta_fields=["path", "sources", "returned"],
)
@dataclasses.dataclass(frozen=True)
class _Seen:
    """A `Call` as a compiled function returns it.

    Attributes:
        sources: paths of the layers that made the inputs, "" where no layer did.
        returned: whether the model returns the output.
    """

    path: str
    sources: tuple[str, ...]
    inputs: tuple[Array, ...]
    output: Array
    returned: bool = False


# One function with the graph as an argument: it compiles once for all models of equal structure,
# whatever their weights and bits.
@partial(jax.jit, static_argnums=0)
def _logged(graph: nnx.GraphDef, state: nnx.State, x: Array) -> list[_Seen]:
    log: list[_Seen] = []

    def call(path: str, layer: nnx.Module, inputs: tuple) -> object:
        # The traced arrays are told apart by identity: a layer reads what another returned.
        made = {id(seen.output): seen.path for seen in log}
        sources = tuple(made.get(id(x), "") for x in inputs)
        output = layer(*inputs)  # pyright: ignore[reportCallIssue]
        log.append(_Seen(path, sources, inputs, output))
        return output

    model = nnx.merge(graph, state, copy=True)
    wrap_layers(model, call)
    results = [id(leaf) for leaf in jax.tree.leaves(model(x))]
    return [dataclasses.replace(seen, returned=id(seen.output) in results) for seen in log]


def _into_act(seen: _Seen, log: list[_Seen], layers: dict[str, Layer]) -> bool:
    readers = [layers[other.path].kind for other in log if seen.path in other.sources]
    return readers == ["act"] and not seen.returned


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
