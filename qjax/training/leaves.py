"""A tree of arrays as named numpy arrays, and back.

Names are the paths of the leaves, joined by `/` (`model/conv1/kernel/value`). What a plain array
file cannot hold is noted beside the arrays: typed random keys are stored as their data, and arrays
without elements, which Orbax refuses, by shape only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

Notes = Mapping[str, Mapping[str, Any]]


def to_host(tree: PyTree) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
    """The leaves as numpy arrays with their own dtypes, bit for bit.

    Args:
        tree: leaves are jax or numpy arrays, typed random keys, or Python numbers.

    Returns:
        The arrays with at least one element by path, and JSON notes: `keys` (path to the random
        generator's name) and `empty` (path to dtype and shape).

    Raises:
        TypeError: a leaf that is none of these.
        ValueError: two leaves of one path, or an array that no single process holds whole.
    """
    arrays: dict[str, np.ndarray] = {}
    notes: dict[str, dict[str, Any]] = {"keys": {}, "empty": {}}
    for name, leaf in _named(tree).items():
        if isinstance(leaf, jax.Array):
            if not (leaf.is_fully_addressable or leaf.is_fully_replicated):
                raise ValueError(
                    f"{name} is spread over several processes; replicate it before saving"
                )
            if _is_key(leaf):
                notes["keys"][name] = str(jax.random.key_impl(leaf))
                leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        if array.dtype.kind in "OSUMm" or array.dtype.fields is not None:
            raise TypeError(f"{name} must be an array of numbers, got {type(leaf).__name__}")
        if array.size:
            arrays[name] = array
        else:
            notes["empty"][name] = [array.dtype.name, list(array.shape)]
    return arrays, notes


def with_empty(arrays: Mapping[str, np.ndarray], notes: Notes) -> dict[str, np.ndarray]:
    """The arrays of `to_host`, those without elements included.

    Args:
        arrays: as stored.
        notes: as stored.

    Returns:
        All arrays by path; a typed random key as its uint32 data.
    """
    empty = {
        name: np.zeros(shape, jnp.dtype(dtype)) for name, (dtype, shape) in notes["empty"].items()
    }
    return {**arrays, **empty}


def to_tree(arrays: Mapping[str, np.ndarray], notes: Notes, like: PyTree) -> PyTree:
    """The arrays in the structure, and on the devices, of another tree.

    Args:
        arrays: all arrays by path.
        notes: as from `to_host`.
        like: a tree of the wanted structure. A jax array or `jax.ShapeDtypeStruct` receives a fresh
            jax array with its sharding (none if it is not committed to a device), a numpy array a
            numpy array, a Python number a number.

    Returns:
        A tree of `like`'s structure.

    Raises:
        ValueError: names, shapes or dtypes differ; the message lists them.
    """
    wanted = _named(like)
    problems = [f"{name} is not in the checkpoint" for name in wanted if name not in arrays]
    problems += [f"{name} is only in the checkpoint" for name in arrays if name not in wanted]
    values = {}
    for name, leaf in wanted.items():
        if name in arrays:
            values[name] = _place(arrays[name], notes["keys"].get(name), leaf)
            got, expected = _kind(values[name]), _kind(leaf)
            if got != expected:
                problems.append(f"{name} is {got} in the checkpoint, {expected} in the run")
    if problems:
        more = f" (and {len(problems) - 8} more)" if len(problems) > 8 else ""
        raise ValueError(
            f"the checkpoint is of another model or optimizer: {'; '.join(problems[:8])}{more}."
            " Resume with the configuration it was made with."
        )
    return jax.tree.unflatten(jax.tree.structure(like), [values[name] for name in wanted])


def _named(tree: PyTree) -> dict[str, Any]:
    """The leaves by path, in the tree's order."""
    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in named:
            raise ValueError(f"two leaves have the path {name!r}; rename one")
        named[name] = leaf
    return named


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _kind(leaf: Any) -> str:
    """Dtype and shape in words, e.g. `float32[3, 4]`."""
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    return f"{dtype}{list(np.shape(leaf))}"


def _place(value: np.ndarray, key_impl: str | None, like: Any) -> Any:
    """A fresh value of the kind of `like`: Python number, numpy array, jax array or random key."""
    if isinstance(like, bool | int | float | complex):
        return type(like)(value.item()) if value.shape == () else value
    if not isinstance(like, jax.Array | jax.ShapeDtypeStruct):
        return value
    # Copies: a jax array that aliases numpy memory must not be donated.
    array = jnp.array(value)
    if key_impl is not None:
        array = jax.random.wrap_key_data(array, impl=key_impl)
    pinned = not isinstance(like, jax.Array) or like.committed
    return jax.device_put(array, like.sharding) if pinned and like.sharding else array
