"""TWN against the reference's vector: codes exactly, one threshold and one scale a layer."""

import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core.quantizer import Role
from qjax.methods.twn import Twn
from tests.methods.golden import TOLERANCE, stored, tensor, value_and_gradient, vectors

(VECTOR,) = vectors("twn.").values()


def test_codes_value_and_gradient():
    x = tensor(VECTOR, "input")
    p = Twn().init(x, Role("weight", x.size))
    assert stored(Twn(), p, x) == VECTOR["codes"]
    upstream = jnp.linspace(-1.0, 2.0, x.size)
    value, gradient = value_and_gradient(Twn(), p, x, upstream)
    np.testing.assert_allclose(value, VECTOR["output"], atol=TOLERANCE)
    np.testing.assert_array_equal(gradient, upstream)
    assert 0.7 * np.mean(np.abs(x)) == pytest.approx(VECTOR["params"]["delta"], abs=TOLERANCE)


def test_a_weight_on_the_threshold_is_zero():
    # mean|w| = 0.5 with the weight itself among the mean.
    w = jnp.array([0.25, -0.25, 0.5, 1.0])
    p = Twn(threshold=0.5).init(w, Role("weight", 4))
    assert stored(Twn(threshold=0.5), p, w) == [0, 0, 1, 1]
    (term,) = Twn(threshold=0.5).codes(p, w)
    assert float(term.scale) == 0.75


def test_fields_are_checked():
    with pytest.raises(ValueError, match="Twn.bits must be a whole number from 2 to 2, got 4"):
        Twn(bits=4)
    with pytest.raises(ValueError, match="Twn.threshold must be a number from 0.001 to 0.999"):
        Twn(threshold=1.5)
