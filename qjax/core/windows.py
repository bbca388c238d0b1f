"""Sliding windows over channels-last images: padding rules, taps, and columns folded into channels.

Shared by the float and the integer convolution. An output position (a, b) of a window (kh, kw) with
strides (sh, sw), dilation (dh, dw) and padding ((t, b), (l, r)) sees the input positions
(a*sh + i*dh - t, b*sw + j*dw - l); a *tap* is the slice of the padded input that one (i, j) sees.

*Folding.* In memory order a row of w columns of c channels is also a row of w/m columns of m*c
channels. A convolution with few channels, which leaves most lanes of a vector unit idle, is thus a
convolution with m*sw times as many inputs and m times as many output channels over m times fewer
columns, whose kernel repeats the original one shifted by one column for each of the m outputs:

    folded[i, q, (u, c), (v, o)] = kernel[i, q*m*sw + u - v*sw, c, o], zero where out of range.

The added products are exact zeros. A 3x3 kernel at m = 2 multiplies 4/3 times as much.

*Transposing.* A transposed convolution lets each pixel (a, b) add x * kernel[i, j] at the output
position (a*sh + i - t, b*sw + j - l). With Y = u*sh + r, 0 <= r < sh, the taps that reach row Y are
i = r + m*sh from pixel u - m: for each of the sh*sw phases (r, q) a plain convolution with
ceil(kh / sh) by ceil(kw / sw) taps. All phases together are one convolution with sh*sw times the
outputs (`phases`), which are then put between each other (`interleave`).
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

type Pair = tuple[int, int]
type Padding = tuple[Pair, Pair]


def output_size(size: int, kernel: int, stride: int, pads: Pair, dilation: int = 1) -> int:
    """Number of window positions along one axis.

    Raises:
        ValueError: the window is larger than the padded input.

    >>> output_size(32, 3, 2, (0, 1))
    16
    """
    span = (kernel - 1) * dilation + 1
    if span > size + sum(pads):
        raise ValueError(
            f"a window of {span} (kernel {kernel}, dilation {dilation}) does not fit into an input "
            f"of {size} padded by {pads}: pad more, or use a smaller kernel"
        )
    return (size + sum(pads) - span) // stride + 1


def same_padding(size: int, kernel: int, stride: int = 1, dilation: int = 1) -> Pair:
    """TensorFlow's SAME rule along one axis: ceil(size / stride) outputs, the odd one at the end.

    >>> same_padding(32, 3, 1), same_padding(32, 3, 2), same_padding(33, 3, 2)
    ((1, 1), (0, 1), (1, 1))
    """
    span = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + span - size, 0)
    return total // 2, total - total // 2


def explicit(
    padding: str | int | Sequence[object],
    size: Pair,
    kernel: Pair,
    strides: Pair = (1, 1),
    dilation: Pair = (1, 1),
) -> Padding:
    """Any way to write a padding as ((top, bottom), (left, right)).

    Args:
        padding: "SAME" (TensorFlow's rule), "VALID" (none), one number for all four sides, or
            ((top, bottom), (left, right)), which comes back as it is. Not negative.
        size, kernel, strides, dilation: (rows, columns); what SAME depends on.

    Raises:
        ValueError: anything else.

    >>> explicit("SAME", (32, 33), (3, 3), (2, 2)), explicit(1, (8, 8), (3, 3))
    (((0, 1), (1, 1)), ((1, 1), (1, 1)))
    """
    match padding:
        case "SAME":
            rows, columns = map(same_padding, size, kernel, strides, dilation)
            return rows, columns
        case "VALID":
            return (0, 0), (0, 0)
        case int(n) if n >= 0:
            return (n, n), (n, n)
        case [[int(t), int(b)], [int(left), int(right)]] if min(t, b, left, right) >= 0:
            return (t, b), (left, right)
    raise ValueError(
        f"padding must be 'SAME', 'VALID', a number >= 0 or ((top, bottom), (left, right)) "
        f">= 0, got {padding!r}"
    )


def pad(x: Shaped[Array, "n h w c"], padding: Padding, value: int = 0) -> Shaped[Array, "n H W c"]:
    """`x` with rows and columns of `value` around it; `x` itself where there is nothing to pad."""
    if padding == ((0, 0), (0, 0)):
        return x
    rows, columns = padding
    edges = ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0))
    return lax.pad(x, jnp.asarray(value, x.dtype), edges)


def taps(
    x: Shaped[Array, "n H W c"], kernel: Pair, strides: Pair, dilation: Pair = (1, 1)
) -> list[Shaped[Array, "n oh ow c"]]:
    """What each of the kh*kw kernel positions sees of the padded input, row by row."""
    n, height, width, c = x.shape
    oh = output_size(height, kernel[0], strides[0], (0, 0), dilation[0])
    ow = output_size(width, kernel[1], strides[1], (0, 0), dilation[1])
    found = []
    for i in range(0, kernel[0] * dilation[0], dilation[0]):
        for j in range(0, kernel[1] * dilation[1], dilation[1]):
            end = (n, i + (oh - 1) * strides[0] + 1, j + (ow - 1) * strides[1] + 1, c)
            found.append(lax.slice(x, (0, i, j, 0), end, (1, *strides, 1)))
    return found


def fold(
    x: Shaped[Array, "n h w c"],
    kernel: Shaped[Array, "kh kw c o"],
    columns: int,
    stride: int,
    pads: Pair,
    value: int = 0,
) -> tuple[Shaped[Array, "n h W C"], Shaped[Array, "kh KW C O"]]:
    """Folds `columns` outputs (and columns*stride inputs) into the channels; see the module.

    Convolve the two with column stride 1 and no column padding, then `unfold` the result. The
    columns come back padded with `value`, by `pads` and up to whole blocks; rows as they were.
    """
    n, height, width, c = x.shape
    kh, kw, _, o = kernel.shape
    block = columns * stride
    taken = -(-((columns - 1) * stride + kw) // block)  # input blocks one output block sees
    ow = output_size(width, kw, stride, pads)
    total = (-(-ow // columns) - 1 + taken) * block
    right = total - width - pads[0]
    # Negative where the last input columns reach no output: lax.pad then cuts them off.
    x = lax.pad(
        x, jnp.asarray(value, x.dtype), ((0, 0, 0), (0, 0, 0), (pads[0], right, 0), (0, 0, 0))
    )
    x = x.reshape(n, height, total // block, block * c)
    copies = [
        jnp.pad(kernel, ((0, 0), (v * stride, taken * block - kw - v * stride), (0, 0), (0, 0)))
        for v in range(columns)
    ]
    return x, jnp.stack(copies, -2).reshape(kh, taken, block * c, columns * o)


def unfold(
    y: Shaped[Array, "n oh W O"], columns: int, width: int
) -> Shaped[Array, "n oh {width} o"]:
    """Undoes `fold` on the output: the first `width` columns of O/columns channels."""
    n, oh, blocks, o = y.shape
    return y.reshape(n, oh, blocks * columns, o // columns)[:, :, :width]


def transposed_size(size: int, kernel: int, stride: int, padding: str) -> tuple[int, int]:
    """(rows cut off before the output begins, output rows) of a transposed convolution.

    TensorFlow's rules: VALID keeps all that some pixel reaches, SAME gives size * stride rows and
    cuts what a SAME convolution with this stride would have padded.

    Raises:
        ValueError: another word.

    >>> transposed_size(4, 3, 2, "SAME"), transposed_size(4, 3, 2, "VALID")
    ((0, 8), (0, 9))
    """
    spare = max(kernel - stride, 0)
    if padding == "VALID":
        return 0, size * stride + spare
    if padding == "SAME":
        return spare // 2, size * stride
    raise ValueError(f"padding of a transposed convolution must be SAME or VALID, got {padding!r}")


def phases(kernel: Shaped[Array, "kh kw c o"], strides: Pair) -> Shaped[Array, "ti tj c O"]:
    """The kernel whose outputs are all phases of a transposed convolution; see the module.

    >>> phases(jnp.ones((3, 3, 4, 5)), (2, 2)).shape, phases(jnp.ones((2, 2, 4, 5)), (2, 2)).shape
    ((2, 2, 4, 20), (1, 1, 4, 20))
    """
    (kh, kw, c, o), (sh, sw) = kernel.shape, strides
    ti, tj = -(-kh // sh), -(-kw // sw)
    whole = jnp.pad(kernel, ((0, ti * sh - kh), (0, tj * sw - kw), (0, 0), (0, 0)))
    # The tap of pixel u - m comes last for m = 0.
    parts = whole.reshape(ti, sh, tj, sw, c, o)[::-1, :, ::-1]
    return parts.transpose(0, 2, 4, 1, 3, 5).reshape(ti, tj, c, sh * sw * o)


def phase_padding(
    x_shape: Sequence[int], kernel_shape: Sequence[int], strides: Pair, cut: Pair, size: Pair
) -> Padding:
    """The padding under which a convolution with `phases` reaches all of the output.

    Args:
        x_shape: (n, h, w, c).
        kernel_shape: of `phases`, (ti, tj, c, O).
        strides, cut, size: as `interleave`.
    """
    rows = zip(x_shape[1:3], kernel_shape[:2], strides, cut, size, strict=True)
    top, left = (
        (t - 1, max(-(-(before + out) // stride) - given, 0))
        for given, t, stride, before, out in rows
    )
    return top, left


def interleave(
    y: Shaped[Array, "n u v O"], strides: Pair, cut: Pair, size: Pair
) -> Shaped[Array, "n oh ow o"]:
    """The output of a transposed convolution from its phases.

    Args:
        y: what a convolution with `phases` made.
        strides: (rows, columns).
        cut: rows and columns before the output begins.
        size: (rows, columns) of the output.
    """
    n, u, v, channels = y.shape
    (sh, sw), o = strides, channels // (strides[0] * strides[1])
    y = y.reshape(n, u, v, sh, sw, o).transpose(0, 1, 3, 2, 4, 5).reshape(n, u * sh, v * sw, o)
    return y[:, cut[0] : cut[0] + size[0], cut[1] : cut[1] + size[1]]


def merge_groups(
    kernel: Shaped[Array, "kh kw k o"], groups: int, channels: int
) -> list[Shaped[Array, "kh kw K O"]]:
    """Dense kernels for a grouped convolution, for consecutive parts of the input channels.

    Neighbouring groups share one block-diagonal kernel, as many as it takes to have `channels`
    inputs or outputs: zeros are multiplied, but a few wide convolutions take the place of many
    narrow ones.

    >>> [k.shape for k in merge_groups(jnp.ones((3, 3, 4, 32)), groups=8, channels=16)]
    [(3, 3, 16, 16), (3, 3, 16, 16)]
    """
    kh, kw, ci, o = kernel.shape
    divisors = [m for m in range(1, groups + 1) if groups % m == 0]
    merged = next((m for m in divisors if m * max(ci, o // groups) >= channels), groups)
    parts = groups // merged
    blocks = kernel.reshape(kh, kw, 1, ci, parts, merged, o // groups)
    diagonal = jnp.eye(merged, dtype=kernel.dtype).reshape(1, 1, merged, 1, 1, merged, 1)
    kernels = (blocks * diagonal).reshape(kh, kw, merged * ci, parts, -1)
    return [kernels[:, :, :, part] for part in range(parts)]
