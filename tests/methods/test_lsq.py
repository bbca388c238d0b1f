"""LSQ against the reference's vectors: codes exactly, values and gradients to float32."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core.quantizer import Role
from qjax.methods.lsq import Lsq

FILE = Path(__file__).parents[1] / "vectors" / "golden_training.json"
VECTORS = {
    vector["id"]: vector
    for vector in json.loads(FILE.read_text())["vectors"]
    if vector["id"].startswith("lsq.")
}


def quantizer(vector: dict) -> Lsq:
    return Lsq(bits=vector["bits"], signed=vector["role"] == "weight")


def numbers(vector: dict) -> dict:
    """The vector's own step and N, whatever `init` would choose."""
    p = quantizer(vector).init(jnp.ones(3), Role(vector["role"], vector["params"]["N"]))
    return p | {"step": jnp.float32(vector["params"]["s"])}


@pytest.mark.parametrize("name", VECTORS)
def test_codes_and_values(name: str) -> None:
    vector = VECTORS[name]
    x = jnp.asarray(vector["input"], jnp.float32)
    codes = quantizer(vector).codes(numbers(vector), x)[0].codes
    expected = vector.get("signed_codes", vector.get("codes"))
    np.testing.assert_array_equal(np.asarray(codes), expected)
    np.testing.assert_allclose(
        quantizer(vector)(numbers(vector), x), vector["output"], atol=2e-6, rtol=2e-6
    )


@pytest.mark.parametrize("name", VECTORS)
def test_gradients(name: str) -> None:
    vector = VECTORS[name]
    q, p = quantizer(vector), numbers(vector)
    x, upstream = (jnp.asarray(vector[k], jnp.float32) for k in ("input", "upstream_grad"))

    def loss(x: jax.Array, step: jax.Array) -> jax.Array:
        return jnp.sum(q(p | {"step": step}, x) * upstream)

    d_x, d_step = jax.grad(loss, (0, 1))(x, p["step"])
    np.testing.assert_allclose(d_x, vector["d_input"], atol=2e-6)
    np.testing.assert_allclose(d_step, vector["d_s"], atol=2e-6)


def test_first_step_is_the_papers() -> None:
    x = jnp.asarray(VECTORS["lsq.w.k4"]["input"], jnp.float32)
    step = Lsq(bits=4).init(x, Role("weight", x.size))["step"]
    np.testing.assert_allclose(step, VECTORS["lsq.w.k4"]["params"]["s"], rtol=1e-6)


def test_one_bit_has_no_signed_form() -> None:
    with pytest.raises(ValueError, match=r"Lsq\.bits must be a whole number from 2 to 8, got 1"):
        Lsq(bits=1, signed=True)
