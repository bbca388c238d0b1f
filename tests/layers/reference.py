"""Exact references for integer layers: float64 arithmetic on decoded codes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from qjax.core.codes import Codes, IntegerTerm, int8_shift
from qjax.core.floatconv import explicit
from qjax.core.host import HostArray
from qjax.core.quantizer import Quantizer, Role
from qjax.core.requantize import Policy, q31_even
from qjax.layers.layer import Layer
from qjax.layers.slots import Slot
from tests.strategies import Geometry


@dataclasses.dataclass(frozen=True)
class Input:
    """An activation grid: codes low..high with real zero at `zero`."""

    low: int
    high: int
    zero: int
    scale: float = 0.03

    def codes(self, shape: tuple[int, ...], seed: int = 0) -> Codes:
        """Random codes of a shape, the ends of the range among them."""
        values = np.random.default_rng(seed).integers(self.low, self.high + 1, shape)
        values.flat[0], values.flat[-1] = self.low, self.high
        shift = int8_shift(self.low, self.high)
        term = IntegerTerm(
            jnp.asarray(values - shift, jnp.int8),
            HostArray(self.scale),
            HostArray(self.zero - shift),
            self.low - shift,
            self.high - shift,
        )
        return Codes((term,))


def pending(shape: tuple[int, ...], seed: int = 0, terms: int = 1) -> Codes:
    """Accumulators as a convolution with folded BN hands them on: scales of either sign per
    channel, an offset.
    """
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(terms):
        ints = jnp.asarray(rng.integers(-1000, 1001, shape), jnp.int32)
        scale = rng.choice([-1.0, 1.0], shape[-1]) * rng.uniform(1e-3, 5e-3, shape[-1])
        made.append(IntegerTerm(ints, HostArray(scale), HostArray(0.0), -1000, 1000))
    return Codes(tuple(made), HostArray(rng.uniform(-1, 1, shape[-1])))


def bind(layer: Layer, slot: str, quantizer: Quantizer, sample: Array) -> Slot:
    """Put a quantizer into a slot, its first numbers from a sample."""
    role = Role("weight" if slot == "weight" else "activation", sample.size)
    bound = Slot(quantizer, quantizer.init(sample, role))
    setattr(layer, slot, bound)
    return bound


def twin(layer: Layer, *inputs: Codes, policy: Policy = q31_even) -> Any:
    """The integer form of a layer in evaluation mode, for inputs like these."""
    layer.eval()
    abstract = jax.eval_shape(lambda *x: x, *inputs)
    return layer.integer(abstract, policy)


def integer(layer: Layer, *inputs: Codes, policy: Policy = q31_even) -> Codes:
    """What the compiled integer form of a layer makes of codes."""
    form = twin(layer, *inputs, policy=policy)
    return jax.jit(lambda *x: form(*x))(*inputs)


def simulated(layer: Layer, *inputs: Codes) -> np.ndarray:
    """What the simulated layer makes of the same tensors, in evaluation mode."""
    layer.eval()
    return np.asarray(layer(*(jnp.asarray(x.decode(), jnp.float32) for x in inputs)))  # pyright: ignore


def conv64(x: np.ndarray, kernel: np.ndarray, geometry: Geometry) -> np.ndarray:
    """A convolution in float64, tap by tap, real zero around the image."""
    kh, kw, ci, o = kernel.shape
    pads = explicit(geometry.padding, geometry.image, geometry.kernel, geometry.strides)
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    (sh, sw), groups = geometry.strides, geometry.groups
    rows, columns = (x.shape[1] - kh) // sh + 1, (x.shape[2] - kw) // sw + 1
    out = np.zeros((x.shape[0], rows, columns, o))
    for group in range(groups):
        ins = slice(group * ci, (group + 1) * ci)
        outs = slice(group * o // groups, (group + 1) * o // groups)
        for i in range(kh):
            for j in range(kw):
                seen = x[:, i : i + sh * (rows - 1) + 1 : sh, j : j + sw * (columns - 1) + 1 : sw]
                out[..., outs] += seen[..., ins] @ kernel[i, j, :, outs]
    return out


def windows64(x: np.ndarray, window: int, stride: int, reduce) -> np.ndarray:
    """`reduce` over the last axis of every window, without padding."""
    rows, columns = ((size - window) // stride + 1 for size in x.shape[1:3])
    parts = [
        x[:, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
        for i in range(window)
        for j in range(window)
    ]
    return reduce(np.stack(parts, -1), -1)


def assert_exact(codes: Codes, expected: np.ndarray) -> None:
    """Codes stand for these numbers: one wrong integer would be seen, float64's last bits not."""
    scale = np.max(np.abs(expected)) + 1e-30
    np.testing.assert_allclose(codes.decode(), expected, rtol=1e-11, atol=1e-11 * scale)
    for term in codes.terms:
        assert jnp.issubdtype(term.ints.dtype, jnp.integer)
        assert term.low <= int(term.ints.min()) and int(term.ints.max()) <= term.high


def assert_simulates(layer: Layer, inputs: tuple[Codes, ...], expected: np.ndarray) -> None:
    """The simulated layer computes the same numbers in float32."""
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(simulated(layer, *inputs), expected, rtol=2e-5, atol=2e-6 * scale)


def assert_lands(codes: Codes, slot: Slot, real: np.ndarray) -> None:
    """Codes are the real numbers, rounded half to even onto a slot's grid in float64."""
    grid = slot.grid()
    (term,) = codes.terms
    assert (term.ints.dtype, float(term.scale.value)) == (jnp.int8, grid.scale)
    steps = real / grid.scale
    expected = np.clip(np.rint(steps) + grid.zero_point, grid.low, grid.high)
    shift = int8_shift(grid.low, grid.high)
    wrong = np.asarray(term.ints, int) + shift != expected
    assert np.all(np.abs(steps - np.floor(steps) - 0.5)[wrong] < 1e-6)
    assert np.mean(wrong) <= 1e-3
