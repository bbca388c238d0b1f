"""Times every form of an integer convolution, and of the float32 one, layer by layer.

    python experiments/bench/intconv.py                 all layers, batch 64 and 1
    python experiments/bench/intconv.py --only dw --batch 1

One JSON line a layer: the form that `choose` takes, and the median milliseconds of each form that
applies, timed in turn in one process so that a busy machine slows all of them alike.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from qjax.core import windows
from qjax.core.intconv import dense_acc
from qjax.core.intforms import FORMS, Geometry, choose


class Layer(NamedTuple):
    """A square convolution: input size, channels, kernel size, stride, groups."""

    size: int
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1


LAYERS = {
    "resnet_stem": Layer(32, 3, 16),
    "resnet_16": Layer(32, 16, 16),
    "resnet_16_32": Layer(32, 16, 32, stride=2),
    "resnet_shortcut": Layer(32, 16, 32, kernel=1, stride=2),
    "resnet_32": Layer(16, 32, 32),
    "resnet_32_64": Layer(16, 32, 64, stride=2),
    "resnet_64": Layer(8, 64, 64),
    "resnet18_512": Layer(4, 512, 512),
    "lenet_1": Layer(28, 1, 6, kernel=5),
    "lenet_2": Layer(14, 6, 16, kernel=5),
    "dw_32": Layer(32, 32, 32, groups=32),
    "dw_128_s2": Layer(16, 128, 128, stride=2, groups=128),
    "dw_256": Layer(8, 256, 256, groups=256),
    "groups_32x4": Layer(28, 128, 128, groups=32),
}
DENSE = {"dense_64_10": (64, 10), "dense_1280_1000": (1280, 1000), "dense_4096_1024": (4096, 1024)}


def candidates(layer: Layer, batch: int) -> tuple[str, dict[str, Callable], list[jax.Array]]:
    """The chosen form, every form that can compute the layer, and random codes for it."""
    rng = np.random.default_rng(0)
    x_shape = (batch, layer.size, layer.size, layer.inputs)
    k_shape = (layer.kernel, layer.kernel, layer.inputs // layer.groups, layer.outputs)
    codes = [jnp.asarray(rng.integers(-128, 128, s), jnp.int8) for s in (x_shape, k_shape)]
    pads = windows.same_padding(layer.size, layer.kernel, layer.stride)
    geometry = Geometry((layer.stride, layer.stride), (pads, pads), layer.groups, platform="cpu")
    depthwise, grouped = k_shape[2] == 1 < layer.groups, layer.groups > 1
    applies = {
        "shifted": depthwise,
        "grouped": grouped,
        "dot": layer.kernel == 1,
        "patches": not grouped,
        "native": not grouped,
        "folded": not grouped and layer.inputs <= 64,
    }

    def call(form: Callable) -> Callable:
        return lambda x, kernel: form(x, kernel, geometry)

    forms = {name: call(FORMS[name]) for name, fits in applies.items() if fits}
    forms["xla"] = lambda x, kernel: _convolve(x, kernel, geometry, jnp.int32)
    forms["float32"] = lambda x, kernel: _convolve(
        x.astype(jnp.float32), kernel.astype(jnp.float32), geometry, jnp.float32
    )
    return choose(x_shape, k_shape, geometry), forms, codes


def median_ms(forms: Mapping[str, Callable], codes: list[jax.Array], rounds: int) -> dict:
    """Median milliseconds of each form over `rounds`, one after another."""
    compiled = {name: jax.jit(form).lower(*codes).compile() for name, form in forms.items()}
    expected = np.asarray(compiled["xla"](*codes))
    repeats = {}
    for name, form in compiled.items():
        if name != "float32":
            np.testing.assert_array_equal(np.asarray(form(*codes)), expected)
        start = time.perf_counter()
        jax.block_until_ready(form(*codes))
        repeats[name] = max(1, int(0.01 / (time.perf_counter() - start)))
    taken = {name: [] for name in compiled}
    for _ in range(rounds):
        for name, form in compiled.items():
            start = time.perf_counter()
            for _ in range(repeats[name] - 1):
                form(*codes)
            jax.block_until_ready(form(*codes))
            taken[name].append((time.perf_counter() - start) / repeats[name] * 1e3)
    return {name: round(statistics.median(times), 4) for name, times in taken.items()}


def main() -> None:
    """Prints the lines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="layers whose name contains this")
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 1])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    for batch in arguments.batch:
        for name, layer in LAYERS.items():
            if arguments.only in name:
                chosen, forms, codes = candidates(layer, batch)
                times = median_ms(forms, codes, arguments.rounds)
                print(json.dumps({"layer": name, "batch": batch, "chosen": chosen, "ms": times}))
        for name, shape in DENSE.items():
            if arguments.only in name:
                rng = np.random.default_rng(0)
                shapes = ((batch, shape[0]), shape)
                codes = [jnp.asarray(rng.integers(-128, 128, s), jnp.int8) for s in shapes]
                forms = {"dense_acc": dense_acc, "xla": _dot, "float32": _float_dot}
                times = median_ms(forms, codes, arguments.rounds)
                print(json.dumps({"layer": name, "batch": batch, "ms": times}))


def _convolve(x: jax.Array, kernel: jax.Array, geometry: Geometry, dtype: DTypeLike) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        geometry.strides,
        geometry.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
        preferred_element_type=dtype,
    )


def _dot(x: jax.Array, weight: jax.Array) -> jax.Array:
    return lax.dot(x, weight, preferred_element_type=jnp.int32)


def _float_dot(x: jax.Array, weight: jax.Array) -> jax.Array:
    return lax.dot(x.astype(jnp.float32), weight.astype(jnp.float32))


if __name__ == "__main__":
    main()
