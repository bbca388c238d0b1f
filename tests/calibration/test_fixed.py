"""A known range: bytes land on their own codes, whatever a batch holds."""

import jax.numpy as jnp
import numpy as np
import pytest

from qjax.calibration.fixed import Fixed
from qjax.core.quantizer import Role
from qjax.methods.affine import AffineActivation


def test_a_byte_less_128_is_its_code():
    q = AffineActivation(8, estimator=Fixed(-1.0, 127 / 128))
    pixels = np.arange(256)
    x = jnp.asarray((pixels / 255 - 128 / 255) / (128 / 255), jnp.float32)
    p = q.init(x[:3], Role("activation", 3))
    assert q.grid(p).scale == 2**-7
    np.testing.assert_array_equal(np.asarray(q.encode(p, x).terms[0].ints), pixels - 128)
    for name, value in q.observe(p, 9 * x).items():
        assert float(value) == float(p[name])


@pytest.mark.parametrize("ends", [(1.0, 1.0), (0.0, -1.0), (0.0, float("inf"))])
def test_ends_are_checked(ends: tuple[float, float]):
    with pytest.raises(ValueError, match="Fixed.low must be below Fixed.high, both finite"):
        Fixed(*ends)
