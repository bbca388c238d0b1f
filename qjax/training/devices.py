"""The devices that share each batch: one, several, or those of several processes.

The state is whole on every device; a batch is split along the axis `data`. Under jit the sums and
means over a batch (loss, gradients, batch statistics, ranges) are those of the whole batch, so that
a run computes the same as on one device, up to the order of floating-point sums.
"""

from __future__ import annotations

import atexit
import dataclasses
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from qjax.data.pipeline import WHOLE, Part

AUTO, ALL = "auto", "all"
AXIS = "data"


@dataclasses.dataclass(frozen=True)
class Devices:
    """Devices that share each batch.

    Attributes:
        mesh: of one axis; None for one device, the default one.
    """

    mesh: Mesh | None = None

    @property
    def count(self) -> int:
        """How many."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def part(self) -> Part:
        """What of each batch this process holds."""
        if self.mesh is None or jax.process_count() == 1:
            return WHOLE
        return Part(jax.process_index(), jax.process_count())

    @property
    def name(self) -> str:
        """In words."""
        device = jax.devices()[0]
        return f"{self.count} x {device.device_kind} ({device.platform})"

    def _sharding(self, *axes: str | None) -> NamedSharding:
        assert self.mesh is not None
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def replicate(self, tree: PyTree) -> PyTree:
        """Arrays that every process holds, whole on every device; on one device as they are."""
        if self.mesh is None:
            return tree
        sharding = self._sharding()

        def put(leaf: Array) -> Array:
            if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                data = put(jax.random.key_data(leaf))
                return jax.random.wrap_key_data(data, impl=str(jax.random.key_impl(leaf)))
            value = np.asarray(leaf)
            return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

        return jax.tree.map(put, tree)

    def split(self, whole: np.ndarray, axis: int = 0) -> Array:
        """An array that every process holds, cut along an axis into one part a device."""
        if self.mesh is None:
            return jnp.asarray(whole)
        sharding = self._sharding(*[None] * axis, AXIS)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    def joined(self, own: np.ndarray) -> Array:
        """An array of which each process holds its `part` along the first axis."""
        if self.mesh is None:
            return jnp.asarray(own)
        return jax.make_array_from_process_local_data(self._sharding(AXIS), own)

    def local(self, tree: PyTree) -> PyTree:
        """Replicated arrays as arrays of one device of this process."""
        if self.mesh is None:
            return tree
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)

    def jit(self, function: Callable, **options: Any) -> Any:
        """A compiled function of arrays of these devices, whose results are replicated."""
        if self.mesh is None:
            return jax.jit(function, **options)
        return jax.jit(function, out_shardings=self._sharding(), **options)

    def filled(self, size: int) -> int:
        """The least number of images, `size` or more, that the devices divide evenly."""
        return -(-size // self.count) * self.count


ONE = Devices()


def check_devices(value: Any) -> None:
    """Raise unless `value` is "auto", "all" or a number of devices.

    Raises:
        ValueError: naming field, value and what is allowed.
    """
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not whole and value not in (AUTO, ALL):
        raise ValueError(f"devices must be auto, all or a whole number from 1, got {value!r}")


def find_devices(wanted: int | str, batch_size: int) -> Devices:
    """The devices of a run.

    Args:
        wanted: how many; "all" of them; "auto" for one, or for all where several processes work
            together.
        batch_size: images a step, over all devices.

    Raises:
        ValueError: there are not as many; several processes must use all they have; or a batch
            cannot be split evenly.
    """
    devices, processes = jax.devices(), jax.process_count()
    if wanted == AUTO:
        wanted = 1 if processes == 1 else ALL
    count = len(devices) if wanted == ALL else int(wanted)
    if count > len(devices):
        kind = f"{devices[0].device_kind} ({devices[0].platform})"
        raise ValueError(
            f"run.devices must be at most {len(devices)}, the devices that JAX finds here "
            f"({kind}), got {count}"
        )
    if processes > 1 and count < len(devices):
        raise ValueError(
            f"run.devices must be all or {len(devices)}, the devices of all {processes} processes, "
            f"got {count}; start fewer processes to use fewer devices"
        )
    if batch_size % count:
        below, above = batch_size // count * count, -(-batch_size // count) * count
        near = f"{below} or {above}" if below else f"{above}"
        raise ValueError(
            f"batch_size must be a multiple of the {count} devices that share it (run.devices), "
            f"got {batch_size}; take {near}"
        )
    return ONE if count == 1 else Devices(Mesh(np.array(devices[:count]), (AXIS,)))


def connect() -> None:
    """Join the other processes of this job; before anything else asks JAX for a device.

    Under Slurm and Open MPI JAX finds them itself. Elsewhere the environment names them:
    JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES, JAX_PROCESS_ID (from 0).

    A process that ends without `disconnect` has failed: it ends at once, with exit code 1.

    Raises:
        ValueError: they cannot be found.
    """
    if jax.distributed.is_initialized():
        return
    numbers = {}
    for name in ("num_processes", "process_id"):
        text = os.environ.get(f"JAX_{name.upper()}")
        if text is not None and not text.isdecimal():
            raise ValueError(f"JAX_{name.upper()} must be a whole number, got {text!r}")
        numbers[name] = None if text is None else int(text)
    try:
        jax.distributed.initialize(**numbers)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"run.distributed=true: the processes of this job are not found ({error}); start them "
            "with srun, or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error
    atexit.register(_leave)


def disconnect() -> None:
    """Wait until every process of this job is here, and part."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def _leave() -> None:
    """End a process that has failed. JAX would wait minutes for the others, who wait for it."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def first_process() -> bool:
    """Whether this process writes what a run leaves behind."""
    return jax.process_index() == 0


def agreed(value: bool) -> bool:
    """What the first process says; all must ask. The others wait until it has."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.uint8(value)))
