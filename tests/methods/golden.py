"""Golden vectors as tests read them: codes exactly, values and gradients to float32."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from qjax.core.quantizer import Numbers, Quantizer

FOLDER = Path(__file__).parents[1] / "vectors"
TOLERANCE = 2e-6
"""Absolute, in float32: what the vectors' file asks for."""


def vectors(prefix: str) -> dict[str, dict]:
    """The training vectors whose name begins so."""
    found = json.loads((FOLDER / "golden_training.json").read_text())["vectors"]
    return {vector["id"]: vector for vector in found if vector["id"].startswith(prefix)}


def tensor(vector: dict, name: str) -> Array:
    """A field as float32."""
    return jnp.asarray(vector[name], jnp.float32)


def stored(quantizer: Quantizer, p: Numbers, x: Array) -> list[int]:
    """The codes that `encode` stores, without the shift of unsigned bytes."""
    (term,) = quantizer.stripped().encode(p, x).terms
    shift = 128 if term.low == -128 and term.high == 127 else 0
    return (np.asarray(term.ints, int) + shift).tolist()


def value_and_gradient(
    quantizer: Quantizer, p: Numbers, x: Array, upstream: Array
) -> tuple[Array, Array]:
    """The compiled simulation and its gradient with respect to x."""
    value, pull = jax.jit(lambda x: jax.vjp(lambda x: quantizer.stripped()(p, x), x))(x)
    return value, pull(upstream)[0]
