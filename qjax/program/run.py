"""Running a program: pure functions of integers, to be compiled whole by `jax.jit`.

logits = jax.jit(partial(run, program))(pixels)["logits"]
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array

from qjax.program.base import Operator
from qjax.program.program import Program
from qjax.program.tensor import Tensor


def run(
    program: Program, inputs: Array | Mapping[str, Array], *, all_tensors: bool = False
) -> dict[str, Array]:
    """Compute a program's outputs.

    Args:
        program: closed over, not an argument, of what is compiled.
        inputs: an array where there is one input, else arrays by name; each of its tensor's dtype
            and shape, with any batch.
        all_tensors: return every activation, inputs included, layer by layer.

    Returns:
        Arrays by tensor name: the outputs, or all.

    Raises:
        ValueError: inputs that are not those the program declares.
    """
    values = _checked(program, inputs)
    constants = {t.name: jnp.asarray(t.data) for t in program.tensors if t.data is not None}
    for operator in program.operators:
        values[operator.output] = step(program, operator, values | constants)
    return values if all_tensors else {name: values[name] for name in program.outputs}


def step(program: Program, operator: Operator, values: Mapping[str, Array]) -> Array:
    """Compute one operator of a program.

    Args:
        program, operator: which one.
        values: by name, at least the operator's inputs; constants may be left out.

    Returns:
        The codes of its output.
    """
    site = program.site(operator)
    given = [
        values[tensor.name] if tensor.data is None else jnp.asarray(tensor.data)
        for tensor in site.inputs
    ]
    return operator.compute(site, *given)


def _checked(program: Program, inputs: Array | Mapping[str, Array]) -> dict[str, Array]:
    if not isinstance(inputs, Mapping):
        inputs = {name: inputs for name in program.inputs[:1]}
    if set(inputs) != set(program.inputs):
        raise ValueError(
            f"the program's inputs are {', '.join(program.inputs)}, got {', '.join(inputs)}"
        )
    batches = set()
    for name in program.inputs:
        tensor, value = program[name], inputs[name]
        _check_input(tensor, value)
        batches |= {value.shape[0]} if tensor.shape[:1] == (None,) else set()
    if len(batches) > 1:
        raise ValueError(f"inputs must share one batch, got {sorted(batches)}")
    return dict(inputs)


def _check_input(tensor: Tensor, value: Array) -> None:
    fits = len(value.shape) == len(tensor.shape) and all(
        size in (None, given) for size, given in zip(tensor.shape, value.shape, strict=True)
    )
    if not fits or jnp.dtype(value.dtype).name != tensor.dtype:
        raise ValueError(
            f"input {tensor.name!r} must be {tensor.dtype} of shape {tensor.shape}, got "
            f"{value.dtype} of shape {value.shape}"
        )


def runner(program: Program, *, all_tensors: bool = False):
    """A compiled function of a program's inputs; compiles once for each batch size.

    Returns:
        inputs -> arrays by tensor name, as `run`.
    """
    return jax.jit(lambda inputs: run(program, inputs, all_tensors=all_tensors))
