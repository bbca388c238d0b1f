"""Programs whose compiled results can be compared with numpy's: what qjax relies on of XLA.

`qjax.doctor` runs them. Three kinds: the products and arithmetic of the integer path, patterns that
some release of XLA computed wrongly, and patterns that are wrong or slow on some platform today,
which qjax avoids.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from qjax.core import wide
from qjax.core.affine import Affine
from qjax.core.floatconv import dense
from qjax.core.intconv import conv_acc, dense_acc
from qjax.core.rescale import q31_even


@dataclass(frozen=True, eq=False)
class Check:
    """A program, its inputs, and what numpy makes of them.

    Attributes:
        name: what is checked.
        run: the program.
        inputs: its arguments.
        expected: numpy's result, compared exactly.
        tolerance: relative to the largest expected value; 0 for integers.
        compiled: False runs operator by operator, as outside `jit`.
        avoided: what qjax uses instead, for a pattern it never relies on.
    """

    name: str
    run: Callable[..., jax.Array]
    inputs: tuple[np.ndarray | jax.Array, ...]
    expected: np.ndarray
    tolerance: float = 0.0
    compiled: bool = True
    avoided: str = ""


def checks() -> Iterator[Check]:
    """All checks that the present devices allow."""
    yield from _products()
    yield from _arithmetic()
    yield from _known_bad()
    yield from _avoided()


def _codes(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Random int8 codes, a third of them -128 or 127: kernels that saturate show on these."""
    rng = np.random.default_rng(seed)
    ends = rng.choice(np.array([-128, 127], np.int8), shape)
    return np.where(rng.random(shape) < 1 / 3, ends, rng.integers(-128, 128, shape)).astype(np.int8)


def _correlate(x: np.ndarray, kernel: np.ndarray, groups: int) -> np.ndarray:
    """numpy's integer convolution: channels last, stride 1, the size kept."""
    reach = kernel.shape[0] // 2
    padded = np.pad(x.astype(np.int64), ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], (1, 2))
    seen = seen.reshape(*x.shape[:3], groups, -1, *kernel.shape[:2])
    weights = kernel.astype(np.int64).reshape(*kernel.shape[:3], groups, -1)
    return np.einsum("nabgcij,ijcgo->nabgo", seen, weights).reshape(*x.shape[:3], -1)


def _products() -> Iterator[Check]:
    x, weight = _codes(0, (64, 640)), _codes(1, (640, 96))
    exact = x.astype(np.int64) @ weight.astype(np.int64)
    yield Check("int8 dense", dense_acc, (x, weight), exact)
    yield Check("int8 dense, one row", dense_acc, (x[:1], weight), exact[:1])
    for name, batch, size, inputs, outputs, taps, groups in (
        ("int8 conv, 3 channels in", 8, 16, 3, 16, 3, 1),
        ("int8 conv, 16 channels", 8, 16, 16, 16, 3, 1),
        ("int8 conv, 32 channels", 8, 16, 32, 32, 3, 1),
        ("int8 conv, few positions", 1, 8, 32, 32, 3, 1),
        ("int8 conv, 1x1", 8, 16, 16, 32, 1, 1),
        ("int8 conv, depthwise", 8, 16, 32, 32, 3, 32),
        ("int8 conv, 8 groups", 8, 16, 32, 32, 3, 8),
    ):
        arrays = (
            _codes(2, (batch, size, size, inputs)),
            _codes(3, (taps, taps, inputs // groups, outputs)),
        )
        padding = ((taps // 2, taps // 2), (taps // 2, taps // 2))

        def run(x: jax.Array, k: jax.Array, padding=padding, groups=groups) -> jax.Array:
            return conv_acc(x, k, padding=padding, groups=groups)

        yield Check(name, run, arrays, _correlate(*arrays, groups))
    yield _chain()
    real, matrix = (
        np.random.default_rng(s).normal(size=(96, 96)).astype(np.float32) for s in (4, 5)
    )
    product = real.astype(np.float64) @ matrix.astype(np.float64)
    yield Check("float32 dense, highest precision", dense, (real, matrix), product, tolerance=1e-6)


def _chain() -> Check:
    """Two convolutions and the rounding between, as XLA fuses them."""
    x, first, second = _codes(9, (8, 8, 8, 1)), _codes(10, (3, 3, 1, 16)), _codes(11, (3, 3, 16, 6))
    affine = Affine((np.float64(2.0**-9),), np.float64(0), ((-(2**18), 2**18),), -128, 127)

    def run(x: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
        codes = q31_even([conv_acc(x, first, padding=((1, 1), (1, 1)))], affine)
        return conv_acc(codes.astype(jnp.int8), second, padding=((1, 1), (1, 1)))

    codes = np.clip(np.rint(_correlate(x, first, 1) * 2.0**-9), -128, 127).astype(np.int8)
    # GPU: XLA's Triton kernels, see `exactness.py`.
    return Check("int8 convs, chained", run, (x, first, second), _correlate(codes, second, 1))


def _arithmetic() -> Iterator[Check]:
    rng = np.random.default_rng(6)
    ends = np.array([-(2**31), -(2**31) + 1, -1, 0, 1, 2**31 - 1])
    a, b = (rng.integers(-(2**31), 2**31, 1000) for _ in range(2))
    a, b = (np.concatenate([np.repeat(ends, 6), a]), np.concatenate([np.tile(ends, 6), b]))
    left, right = a.astype(np.int32), b.astype(np.int32)
    high = a * b >> 32
    yield Check("high word of a product", lax.mulhi, (left, right), high)
    yield Check(
        "high word from halves",
        lambda a, b: wide.multiply_by_halves(a, b).high,
        (left, right),
        high,
    )
    yield Check("int32 product wraps", jnp.multiply, (left, right), (a * b).astype(np.int32))
    shift = rng.integers(0, 32, a.shape).astype(np.int32)
    yield Check("right shift of negatives", jnp.right_shift, (left, shift), left >> shift)
    low, more = left.astype(np.uint32), right.astype(np.uint32)
    carry = (low.astype(np.uint64) + more > 0xFFFFFFFF).astype(np.int32)
    yield Check("carry of uint32", lambda a, b: (a + b < a).astype(jnp.int32), (low, more), carry)
    sums = rng.integers(-(2**20), 2**20, 4000).astype(np.int32)
    affine = Affine((np.float64(2.0**-7),), np.float64(0), ((-(2**20), 2**20),), -128, 127)
    codes = np.clip(np.rint(sums * 2.0**-7), -128, 127)
    yield Check("requantization, half to even", lambda t: q31_even([t], affine), (sums,), codes)
    halves = (np.arange(-2000, 2000) / 2).astype(np.float32)
    yield Check("rounding to int, half to even", _to_int, (halves,), np.rint(halves))


def _to_int(x: jax.Array) -> jax.Array:
    return jnp.round(x).astype(jnp.int32)


def _known_bad() -> Iterator[Check]:
    """Patterns that a release of XLA computed wrongly, each with its report."""
    rows = np.zeros((32_769, 3), np.float32)
    rows[:, 0] = np.arange(32_769)
    eye = jnp.eye(3)
    yield Check(
        "matrix times rows, squared, summed",  # jax issue 39103: jaxlib 0.10.2, CPU
        lambda rows: jax.vmap(lambda row: jnp.sum(jnp.matmul(eye, row, precision="highest") ** 2))(
            rows
        ),
        (rows,),
        np.square(rows[:, 0].astype(np.float64)),
        tolerance=1e-6,
    )
    factors = np.arange(-128, 128, dtype=np.int8)
    wrapped = (factors * 37).astype(np.int8)
    yield Check(
        "int8 product wraps before abs",  # tensorflow issue 118178: XLA on CPU
        lambda x: (lambda p: jnp.where(p < 0, jnp.abs(p), p))(x * jnp.int8(37)),
        (factors,),
        np.where(wrapped < 0, np.abs(wrapped), wrapped),
    )
    yield from _known_bad_on_gpu()


def _known_bad_on_gpu() -> Iterator[Check]:
    zeros = np.zeros(8193, np.float32)
    yield Check(
        "maximum of negative zeros",  # xla issue 5544
        lambda x: jnp.max(-x),
        (zeros,),
        np.zeros(()),
    )
    data = np.tile(np.array([1, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0], np.int8), (2, 1))
    yield Check(
        "all equal, int8",  # xla issue 9431
        lambda x: (jnp.asarray(data) == x).all(-1).astype(jnp.int32),
        (data,),
        np.ones(2, np.int32),
    )
    yield Check(
        "operators outside jit",  # jax issue 40633: jaxlib 0.11, some GPUs
        lambda x: jnp.sqrt(x + 1) * 2,
        (np.full(4, 511, np.float32),),
        2 * np.sqrt(np.full(4, 512.0)),
        tolerance=1e-6,
        compiled=False,
    )


def _avoided() -> Iterator[Check]:
    """Patterns that are slow, wrong or do not compile on some platform of the current release."""
    for name, groups in (("int8 conv as XLA has it", 1), ("grouped int8 conv as XLA has it", 4)):
        arrays = _codes(7, (8, 16, 16, 16)), _codes(8, (3, 3, 16 // groups, 16))

        def run(x: jax.Array, kernel: jax.Array, groups: int = groups) -> jax.Array:
            return lax.conv_general_dilated(  # xla issue 49123: grouped, cuDNN
                x,
                kernel,
                (1, 1),
                ((1, 1), (1, 1)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=groups,
                preferred_element_type=jnp.int32,
            )

        yield Check(name, run, arrays, _correlate(*arrays, groups), avoided="core/intforms.py")
    devices = np.array(jax.devices())
    if devices.size > 1:
        sharding = NamedSharding(Mesh(devices, ("data",)), PartitionSpec("data"))
        values = np.arange(devices.size * 4, dtype=np.int32) * 2**24
        shards = jax.device_put(values, sharding)
        yield Check(
            "high word of a product, sharded",
            lambda a: lax.mulhi(a, a),
            (shards,),
            values.astype(np.int64) ** 2 >> 32,
            avoided="wide.multiply_by_halves",
        )
