"""`integerize`: from a simulated model to one whose traced program holds integers only.

The conversion runs once through the model abstractly. At each layer it sees what arrives (codes on
a grid, pending sums, or floats), builds the integer twin for that, and lets the twin's abstract
output flow on. The model's own `__call__` is the wiring in every form.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Int, UInt8

from qjax.core.codes import Codes, IntegerTerm
from qjax.core.host import HostArray
from qjax.core.requantize import Affine, Policy, q31_even
from qjax.layers.layer import FloatBoundary
from qjax.tree import get, swap, walk, wrap_layers

LOGIT_BITS = 29


@dataclasses.dataclass(frozen=True)
class PixelInput:
    """How uint8 pixels stand for the model's float input: `(pixel / 255 - mean) / std`, channel by
    channel.

    Attributes:
        mean, std: per channel, of pixel/255.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(v) for v in self.mean))
        object.__setattr__(self, "std", tuple(float(v) for v in self.std))
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError(
                f"PixelInput needs one mean and one positive std a channel, got {self.mean}, "
                f"{self.std}"
            )

    def codes(self, pixels: UInt8[Array, "n h w c"]) -> Codes:
        """Pixels as integers, with mean and deviation in scale and offset; no float is computed."""
        ints = (pixels.astype(jnp.int16) - 128).astype(jnp.int8)
        scale = 1 / (255 * np.asarray(self.std))
        term = IntegerTerm(
            ints, HostArray(scale), HostArray(np.full(len(self.std), -128.0)), -128, 127
        )
        return Codes((term,), HostArray(-np.asarray(self.mean) / np.asarray(self.std)))

    def normalise(self, pixels: UInt8[Array, "n h w c"]) -> Array:
        """The same as float32, for the float and the simulated network."""
        shape = (1, 1, 1, -1)
        mean, std = (jnp.asarray(v, jnp.float32).reshape(shape) for v in (self.mean, self.std))
        return (pixels.astype(jnp.float32) / 255 - mean) / std


class IntegerNetwork(nnx.Module):
    """Pixels in, class index out.

    Attributes:
        model: the model with integer layers.
        pixels: how pixels become codes.
        paths: of the layers, in execution order.
        float_layers: paths of the layers that stay float (a recipe with float ends); empty for an
            integer network.
    """

    def __init__(self, model: nnx.Module, pixels: PixelInput, paths: tuple[str, ...]):
        self.model = model
        self.pixels = pixels
        self.paths = paths
        self.float_layers = tuple(
            path for path, twin in self.twins().items() if isinstance(twin, FloatBoundary)
        )

    def twins(self) -> dict[str, nnx.Module]:
        """The integer layers by path, in execution order."""
        return {path: get(self.model, path) for path in self.paths}  # pyright: ignore[reportReturnType]

    def __call__(self, pixels: UInt8[Array, "n h w c"]) -> Int[Array, " n"]:
        """Class index of each image; ties go to the lower index, as argmax does."""
        return jnp.argmax(self.logits(pixels), axis=-1).astype(jnp.int32)

    def logits(self, pixels: UInt8[Array, "n h w c"]) -> Array:
        """Logits on one common integer scale (or float ones, when the last layer stays float)."""
        y = self.model(self.pixels.codes(pixels))  # pyright: ignore[reportCallIssue]
        return common_scale(y) if isinstance(y, Codes) else y


def common_scale(y: Codes) -> Int[Array, "n c"]:
    """Pending logits on one integer grid, fine enough that the order of any two is kept.

    The grid spans the largest logit the accumulators can reach in 29 bits and a sign.
    """
    reach = np.abs(y.offset.value)
    for term in y.terms:
        zero = term.zero_point.value
        reach = reach + np.abs(term.scale.value) * np.maximum(
            np.abs(term.low - zero), np.abs(term.high - zero)
        )
    step = float(np.max(reach)) / 2**LOGIT_BITS or 1.0
    offset = y.offset.value - sum(t.scale.value * t.zero_point.value for t in y.terms)
    limit = 2**LOGIT_BITS
    affine = Affine(
        scales=tuple(term.scale.value / step for term in y.terms),
        offset=np.asarray(offset / step),
        bounds=tuple((term.low, term.high) for term in y.terms),
        low=-limit,
        high=limit,
    )
    return q31_even([term.ints for term in y.terms], affine)


def integerize(
    model: nnx.Module, pixels: PixelInput, shape: tuple[int, ...], policy: Policy = q31_even
) -> IntegerNetwork:
    """The integer form of a simulated model, in evaluation mode.

    Args:
        model: what `quantize` returned, trained or not; it is not changed.
        pixels: how uint8 pixels stand for the model's input.
        shape: shape of one image, (h, w, c).
        policy: arithmetic of every requantization.

    Raises:
        ValueError: naming the layer that cannot be integer, why, and the remedy.
    """
    source = nnx.clone(model)
    source.eval()
    twins: dict[str, nnx.Module] = {}

    def convert(path: str, layer: nnx.Module, inputs: tuple) -> object:
        try:
            twins[path] = layer.integer(inputs, policy)  # pyright: ignore[reportAttributeAccessIssue]
            return jax.eval_shape(twins[path], *inputs)  # pyright: ignore[reportArgumentType]
        except ValueError as error:
            raise ValueError(f"layer {path!r} has no integer form here: {error}") from error

    wrap_layers(source, convert)
    image = jax.ShapeDtypeStruct((1, *shape), jnp.uint8)
    entry = jax.eval_shape(pixels.codes, image)
    output = source(entry)  # pyright: ignore[reportCallIssue]
    if isinstance(output, Codes):
        jax.eval_shape(common_scale, output)
    converted = nnx.clone(model)
    converted.eval()
    for path, _ in list(walk(converted)):
        swap(converted, path, twins[path])
    return IntegerNetwork(converted, pixels, tuple(twins))
