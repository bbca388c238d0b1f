"""A small program that uses most of what files hold."""

import numpy as np

from qjax.core.host import HostArray
from qjax.program import ops
from qjax.program.program import Program
from qjax.program.tensor import Quantization, Tensor


def one(scale: float, zero: float = 0) -> Quantization:
    """One scale for a tensor."""
    return Quantization(HostArray(scale), HostArray(zero))


def each(scales: list[float], axis: int) -> Quantization:
    """A scale for each channel."""
    return Quantization(HostArray(scales), HostArray(np.zeros(len(scales))), axis)


def example(policy: str = "q31_even") -> Program:
    """Pixels to a class: weights of 4 bits and of 1, a sum by channel, a table, a pool, a mean."""
    rng = np.random.default_rng(0)
    kernel = rng.integers(-7, 8, (3, 3, 3, 4)).astype(np.int8)
    signs = (2 * rng.integers(0, 2, (4, 5)) - 1).astype(np.int8)
    table = np.clip(np.arange(-128, 128) * 2, -128, 127).astype(np.int8)
    reach = int(np.abs(kernel).sum((0, 1, 2)).max()) * 255
    # No sum lands near a tie, where a multiplier of 31 bits may round the other way.
    scales = [0.011, 0.0213, -0.0157, 0.0307]
    tensors = (
        Tensor("pixels", (None, 6, 6, 3), "uint8", one(1 / 255)),
        Tensor("x", (None, 6, 6, 3), "int8", one(1 / 255, -128)),
        Tensor("kernel", kernel.shape, "int8", each([0.1] * 4, 3), data=kernel),
        Tensor("sum", (None, 6, 6, 4), "int32", each(scales, 3), -reach, reach),
        Tensor("y", (None, 6, 6, 4), "int8", one(0.05), -8, 7),
        Tensor("table", (256,), "int8", data=table),
        Tensor("z", (None, 6, 6, 4), "int8", one(0.1)),
        Tensor("pooled", (None, 3, 3, 4), "int8", one(0.1)),
        Tensor("mean", (None, 4), "int8", one(0.05)),
        Tensor("signs", signs.shape, "int8", one(0.2), data=signs),
        Tensor("logits", (None, 5), "int32", one(0.01), -(2**20), 2**20),
        Tensor("class", (None,), "int32"),
    )
    steps = (
        ops.Recentre(("pixels",), "x"),
        ops.Conv2D(("x", "kernel"), "sum", padding=((1, 1), (1, 1))),
        ops.Requantize(("sum",), "y", (HostArray(scales),), HostArray([0.1037, -2.47, 0.0, 1.25])),
        ops.Lookup(("y", "table"), "z", "doubled"),
        ops.MaxPool(("z",), "pooled", (2, 2), (2, 2)),
        ops.Mean(("pooled",), "mean", (1, 2)),
        ops.Dense(("mean", "signs"), "logits"),
        ops.ArgMax(("logits",), "class"),
    )
    return Program(("pixels",), ("logits", "class"), tensors, steps, policy)


def pixels(count: int = 3) -> np.ndarray:
    """Inputs of `example`."""
    return np.random.default_rng(1).integers(0, 256, (count, 6, 6, 3)).astype(np.uint8)
