"""Min-max quantization against TensorFlow's, ONNX's and FQN's numbers, ties to even."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from qjax.calibration.ema import EmaMinMax
from qjax.core.quantizer import Role
from qjax.methods.affine import AffineActivation, AffineWeight
from tests.laws.discovery import gradient, simulation
from tests.methods.golden import FOLDER, TOLERANCE, stored, value_and_gradient

GOLDEN = json.loads((FOLDER / "golden_deployment.json").read_text())
FAKE_QUANT = GOLDEN["tflite_gemmlowp (section 2)"]["fake_quant_nudged"]
DYNAMIC = GOLDEN["other_methods"]["onnx_dynamic_quantize_linear"]["cases"]
OBSERVED = GOLDEN["other_methods"]["pytorch_observers"]["minmax"]
FQN = GOLDEN["other_methods"]["fqn_per_channel_4bit"]


def activation(case: dict) -> AffineActivation:
    """The activation quantizer of a fake-quant case: its narrow ranges are symmetric ones."""
    assert not case["narrow_range"] or case["min"] == -case["max"]
    return AffineActivation(case["num_bits"], symmetric=case["narrow_range"])


def numbers(case: dict) -> dict:
    """The case's range, whatever a sample would give."""
    p = activation(case).init(jnp.zeros(2), Role("activation", 2))
    return p | {"low": jnp.float32(case["min"]), "high": jnp.float32(case["max"])}


@pytest.mark.parametrize("case", FAKE_QUANT["cases"], ids=lambda c: f"{c['min']}..{c['max']}")
def test_fake_quant(case: dict):
    q, p = activation(case), numbers(case)
    grid = q.grid(p)
    np.testing.assert_allclose(grid.scale, case["scale"], rtol=1e-6)
    # TensorFlow counts the codes of a narrow range from 1 and has its zero point there.
    shift = 2 ** (case["num_bits"] - 1) if case["narrow_range"] else 0
    assert grid.zero_point + shift == case["zero_point"]
    ends = [grid.scale * (end - grid.zero_point) for end in (grid.low, grid.high)]
    np.testing.assert_allclose(ends, [case["nudged_min"], case["nudged_max"]], atol=1e-6)

    x = jnp.asarray(case["x"], jnp.float32)
    value, slope = value_and_gradient(q, p, x, jnp.ones(x.shape))
    assert slope.tolist() == case["dy_dx"]
    # TensorFlow rounds half up. Its only tie here, 2.5 steps, goes to the even side.
    steps = np.asarray(case["x"]) / case["scale"]
    tie = (np.abs(steps - np.floor(steps) - 0.5) < 1e-6) & (np.asarray(case["dy_dx"]) == 1)
    expected = np.where(tie, np.rint(steps - 1e-6) * case["scale"], case["y"])
    np.testing.assert_allclose(value, expected, atol=FAKE_QUANT["tolerance"])


def test_fake_quant_holds_a_tie():
    (case,) = (c for c in FAKE_QUANT["cases"] if c["scale"] == pytest.approx(0.4))
    value = activation(case)(numbers(case), jnp.asarray([1.0]))
    np.testing.assert_allclose(value, [0.8], atol=TOLERANCE)


@pytest.mark.parametrize("case", DYNAMIC, ids=lambda case: str(case["zero_point"]))
def test_dynamic_quantize_linear(case: dict):
    q, x = AffineActivation(8), jnp.asarray(case["x"], jnp.float32)
    p = q.init(x, Role("activation", 6))
    grid = q.grid(p)
    np.testing.assert_allclose(grid.scale, case["scale"], rtol=1e-6)
    assert grid.zero_point == case["zero_point"]
    steps = np.asarray(case["x"]) / np.float64(np.float32(case["scale"]))
    # -2.5 and 0.5 lie less than a last bit of float32 beside a tie: either side is right.
    clear = np.abs(steps - np.floor(steps) - 0.5) > 1e-5
    assert np.count_nonzero(clear) >= 4
    wrong = np.array(stored(q, p, x)) - np.array(case["y"])
    assert not np.any(wrong[clear]) and np.all(np.abs(wrong) <= 1)


def test_a_minmax_observer():
    q, x = AffineActivation(8), jnp.asarray(OBSERVED["x"], jnp.float32)
    grid = q.grid(q.init(x, Role("activation", 4)))
    scale, zero_point = OBSERVED["quint8_affine"]
    np.testing.assert_allclose(grid.scale, scale, rtol=1e-6)
    assert grid.zero_point == zero_point


def test_asymmetric_weights_per_channel():
    q = AffineWeight(4, symmetric=False, per_channel=True)
    x = jnp.asarray(FQN["w"], jnp.float32).T
    p = q.init(x, Role("weight", x.size))
    codes = q.stripped().encode(p, x)
    for channel, row in enumerate(FQN["rows"]):
        np.testing.assert_allclose(codes.terms[0].scale.value[channel], row["scale"], rtol=1e-6)
        assert codes.terms[0].zero_point.value[channel] == row["zero_point"]
        assert np.asarray(codes.terms[0].ints)[:, channel].tolist() == row["codes"]
        np.testing.assert_allclose(codes.decode()[:, channel], row["dequant"], atol=TOLERANCE)


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_largest_weight_keeps_its_gradient(per_channel: bool):
    # It is an end of the range, and the last bit of the scale must not decide about it.
    q = AffineWeight(8, per_channel=per_channel)
    for seed in range(40):
        x = jnp.asarray(np.random.default_rng(seed).standard_normal((16, 4)), jnp.float32)
        for bits in (2, 3, 8):
            p = {"bits": jnp.int32(bits)}
            assert np.all(gradient(q.stripped())(p, x, jnp.ones_like(x)) == 1)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("fill", [0.0, 2.0, -2.0])
def test_real_zero_is_a_code_and_flat_tensors_survive(symmetric: bool, fill: float):
    q = AffineWeight(4, symmetric=symmetric)
    x = jnp.full((3, 2), fill)
    p = q.init(x, Role("weight", 6))
    np.testing.assert_allclose(simulation(q.stripped())(p, x), x, atol=TOLERANCE)
    (term,) = q.stripped().encode(p, x).terms
    assert term.low <= float(term.zero_point.value) <= term.high


def test_ranges_follow_the_estimator():
    q = AffineActivation(8, estimator=EmaMinMax(decay=0.5))
    p = q.init(jnp.asarray([-1.0, 3.0]), Role("activation", 2))
    assert (float(p["low"]), float(p["high"])) == (-1.0, 3.0)
    seen = q.observe(p, jnp.asarray([0.0, 5.0]))
    assert (float(seen["low"]), float(seen["high"])) == (-0.5, 4.0)
