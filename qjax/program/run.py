"""Running a program: pure functions of integers, to be compiled whole by `jax.jit`.

    logits = runner(program)(pixels)["logits"]

`run` is the same uncompiled, and `step` one operator by itself.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from qjax.program.base import EXACT, Operator, Products
from qjax.program.program import Program
from qjax.program.tensor import Tensor


def run(
    program: Program,
    inputs: ArrayLike | Mapping[str, ArrayLike],
    *,
    all_tensors: bool = False,
    products: Products = EXACT,
) -> dict[str, Array]:
    """Compute a program's outputs.

    Args:
        program: closed over, not an argument, of what is compiled.
        inputs: an array where there is one input, else arrays by name; each of its tensor's dtype
            and shape, with any batch.
        all_tensors: return every activation, inputs included, layer by layer.
        products: how sums are computed: `base.EXACT`, or `base.SATURATING` to know what a CPU
            without VNNI would make of the program.

    Returns:
        Arrays by tensor name: the outputs, or all.

    Raises:
        ValueError: inputs that are not those the program declares.
    """
    values = _checked(program, inputs)
    for operator in program.operators:
        values[operator.output] = step(program, operator, values, products)
    return values if all_tensors else {name: values[name] for name in program.outputs}


def step(
    program: Program,
    operator: Operator,
    values: Mapping[str, Array],
    products: Products = EXACT,
) -> Array:
    """Compute one operator of a program.

    Args:
        program, operator: which one.
        values: by name, at least the activations that it reads.
        products: as `run`.

    Returns:
        The codes of its output.
    """
    site = program.site(operator)._replace(products=products)
    given = [
        values[tensor.name] if tensor.data is None else jnp.asarray(tensor.data)
        for tensor in site.inputs
    ]
    return operator.compute(site, *given)


def _checked(program: Program, inputs: ArrayLike | Mapping[str, ArrayLike]) -> dict[str, Array]:
    given = inputs if isinstance(inputs, Mapping) else {program.inputs[0]: inputs}
    if set(given) != set(program.inputs):
        raise ValueError(
            f"the program's inputs are {', '.join(program.inputs)}, got {', '.join(given)}"
        )
    values = {name: jnp.asarray(given[name]) for name in program.inputs}
    for name, value in values.items():
        _check_input(program[name], value)
    batched = [name for name in values if program[name].shape[:1] == (None,)]
    batches = {values[name].shape[0] for name in batched}
    if len(batches) > 1:
        raise ValueError(f"inputs must share one batch, got {sorted(batches)}")
    return values


def _check_input(tensor: Tensor, value: Array) -> None:
    fits = len(value.shape) == len(tensor.shape) and all(
        size in (None, given) for size, given in zip(tensor.shape, value.shape, strict=True)
    )
    if not fits or value.dtype.name != tensor.dtype:
        raise ValueError(
            f"input {tensor.name!r} must be {tensor.dtype} of shape {tensor.shape}, got "
            f"{value.dtype} of shape {value.shape}"
        )


def runner(program: Program, *, all_tensors: bool = False, products: Products = EXACT):
    """A compiled function of a program's inputs; compiles once for each batch size.

    Args:
        program, all_tensors, products: as `run`.

    Returns:
        inputs -> arrays by tensor name, as `run`.
    """
    return jax.jit(lambda inputs: run(program, inputs, all_tensors=all_tensors, products=products))
