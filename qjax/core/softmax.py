"""Softmax in integers: a table of exponentials, their sum, and a long division.

With codes q on one grid of scale s and d = max(q) - q,

    T_d = round(2**E * exp(-beta * s * d)),    share = floor(2**28 * T_d / sum T).

E leaves a sum of n elements inside 30 bits, E = 30 - ceil(log2 n). The table has as many entries as
d can take values and is made on the host; the program only looks up, adds and divides int32. An
entry is off by at most half a unit, so a share is off by at most 2**-28 + n**2 * 2**-31.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Int32

SHARE_BITS = 28
"""Fractional bits of a share."""
MOST = 4096
"""Elements that may be added up."""
# Two bits of the quotient a step: the remainder, below 2**30, is multiplied by four in 32 bits.
_STEPS = SHARE_BITS // 2


def softmax_shares(
    codes: Int[Array, "*rows n"], scale: float, levels: int = 256
) -> Int32[Array, "*rows n"]:
    """Shares of the last axis in units of 2**-28, rounded down.

    Args:
        codes: on one grid, whatever its zero point.
        scale: real units a code, times beta; positive.
        levels: how many values the codes can take.

    Raises:
        ValueError: more than 4,096 elements, or a scale that is not positive.

    >>> softmax_shares(jnp.array([0, 0, -20], jnp.int8), 0.1).tolist()  # 0.468, 0.468, 0.063
    [125711150, 125711150, 17013154]
    """
    n = codes.shape[-1]
    if n > MOST or not scale > 0:
        raise ValueError(
            f"softmax_shares takes 1 to {MOST} elements and a positive scale, got {n} and {scale}"
        )
    bits = 30 - math.ceil(math.log2(n))
    table = np.rint(np.ldexp(np.exp(-scale * np.arange(levels)), bits)).astype(np.int32)
    wide = codes.astype(jnp.int32)
    powers = jnp.asarray(table)[jnp.max(wide, -1, keepdims=True) - wide]
    total = lax.bitcast_convert_type(
        jnp.sum(powers, -1, keepdims=True, dtype=jnp.int32), jnp.uint32
    )
    return _quotient(lax.bitcast_convert_type(powers, jnp.uint32), total)


def _quotient(rest: Array, total: Array) -> Array:
    """floor(2**28 * rest / total) for rest <= total < 2**30."""
    share = rest // total
    rest = rest - share * total
    for _ in range(_STEPS):
        digit = (rest << 2) // total
        rest = (rest << 2) - digit * total
        share = (share << 2) | digit
    return lax.bitcast_convert_type(share, jnp.int32)
