"""Proof that a converted network computes in integers: no floating dtype anywhere in its traced
program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qjax.core.codes import Codes
from qjax.integerize import IntegerNetwork
from qjax.layers.layer import FloatBoundary
from qjax.layers.slots import Encode
from qjax.tree import get, swap


def float_values(fun: Callable, *args: object) -> list[str]:
    """Every floating value in the traced program of `fun`: inputs, constants, results, sub-programs
    included.

    Returns:
        One line for each, naming the primitive; empty when the program holds none.
    """
    return list(_scan(jax.make_jaxpr(fun)(*args)))


def _is_float(value: object) -> bool:
    dtype = getattr(value, "dtype", None)
    return isinstance(value, float) or (dtype is not None and jnp.issubdtype(dtype, jnp.inexact))


def _scan(jaxpr: Any) -> Iterator[str]:
    # By attribute, not by class: releases of JAX differ in which classes a closed jaxpr has.
    yield from (f"constant {np.shape(c)}" for c in getattr(jaxpr, "consts", ()) if _is_float(c))
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    for var in (*inner.invars, *inner.constvars):
        if _is_float(var.aval):
            yield f"input {var.aval}"
    for eqn in inner.eqns:
        for var in (*eqn.invars, *eqn.outvars):
            if _is_float(var.aval) or _is_float(getattr(var, "val", None)):
                yield f"{eqn.primitive.name}: {var.aval}"
        for part in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(part):
                yield from _scan(part)


def _is_jaxpr(value: object) -> bool:
    return hasattr(value, "eqns")


def check_float_free(network: IntegerNetwork, shape: tuple[int, ...]) -> list[str]:
    """Floating values in the integer part of a network; an empty list is the proof.

    A network without float layers is checked whole, pixels in to class out. With float ends each
    integer layer between the borders is checked by itself.

    Args:
        network: what `integerize` returned.
        shape: of one image, (h, w, c).
    """
    image = jax.ShapeDtypeStruct((2, *shape), jnp.uint8)
    if not network.float_layers:
        graph, state = nnx.split(network)
        return float_values(lambda state, x: nnx.merge(graph, state)(x), state, image)
    found: list[str] = []

    def checked(path: str, twin: nnx.Module) -> Callable:
        def call(*inputs: object) -> object:
            if all(isinstance(x, Codes) for x in inputs) and not isinstance(
                twin, FloatBoundary | Encode
            ):
                found.extend(f"{path}: {line}" for line in float_values(twin, *inputs))
            return jax.eval_shape(twin, *inputs)  # pyright: ignore[reportArgumentType]

        return call

    copy = nnx.clone(network)
    for path in network.paths:
        swap(copy.model, path, Function(checked(path, get(network.model, path))))  # pyright: ignore
    copy.model(jax.eval_shape(network.pixels.codes, image))  # pyright: ignore[reportCallIssue]
    return found


class Function(nnx.Module):
    """A plain function in a layer's place."""

    def __init__(self, call: Callable):
        self.call = call

    def __call__(self, *inputs: object) -> object:
        """What the function returns."""
        return self.call(*inputs)
