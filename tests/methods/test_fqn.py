"""FQN against the reference's vectors: codes, zero points and percentiles."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.calibration.ema import EmaMinMax
from qjax.calibration.percentile import Percentile
from qjax.core.quantizer import Role
from qjax.methods.fqn import FqnActivation, FqnWeight

FILE = Path(__file__).parents[1] / "vectors" / "golden_deployment.json"
VECTORS = json.loads(FILE.read_text())["other_methods"]
CHANNELS = VECTORS["fqn_per_channel_4bit"]
WEIGHT = jnp.asarray(CHANNELS["w"], jnp.float32).T
ROLE = Role("weight", 8)


def test_per_channel_codes() -> None:
    q = FqnWeight(bits=4)
    (term,) = q.codes(q.init(WEIGHT, ROLE), WEIGHT)
    rows = CHANNELS["rows"]
    np.testing.assert_array_equal(np.asarray(term.codes).T, [row["codes"] for row in rows])
    np.testing.assert_allclose(term.scale, [row["scale"] for row in rows], rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(term.zero_point), [row["zero_point"] for row in rows])


def test_per_channel_values_and_gradients() -> None:
    q = FqnWeight(bits=4)
    p = q.init(WEIGHT, ROLE)
    values = np.asarray([row["dequant"] for row in CHANNELS["rows"]]).T
    np.testing.assert_allclose(q(p, WEIGHT), values, rtol=1e-6)
    np.testing.assert_allclose(q.encode(p, WEIGHT).decode(), values, rtol=1e-6)
    slope = jax.grad(lambda w: jnp.sum(q(p, w)))(WEIGHT)
    np.testing.assert_array_equal(slope, np.ones((4, 2)))


def test_a_channel_of_one_sign_still_has_zero() -> None:
    q = FqnWeight(bits=4)
    w = jnp.array([[0.5, -0.5], [1.5, -1.5]])
    (term,) = q.codes(q.init(w, ROLE), w)
    assert np.asarray(term.zero_point).tolist() == [0, 15]


def laplace(n: int, seed: int, scale: float) -> np.ndarray:
    """The reference's generator of test tensors."""
    u = (np.arange(1, n + 1) * 0.6180339887498949 + 0.1 * seed) % 1
    return np.sign(u - 0.5) * scale * -np.log(1 - 2 * np.abs(u - 0.5) + 1e-9)


def test_percentiles() -> None:
    vector = VECTORS["fqn_activation_percentile"]
    x = np.append(laplace(2000, 4, 1.0), [25, -14])
    low, high = Percentile(vector["gamma"]).first(jnp.asarray(x, jnp.float32))
    expected = vector["linear_interp_quantiles_(1-gamma,gamma)"]
    np.testing.assert_allclose([low, high], expected, rtol=1e-5)


def test_activations_clip_outliers_and_their_gradients() -> None:
    q = FqnActivation(bits=4, estimator=Percentile(0.999))
    x = jnp.asarray(np.append(laplace(2000, 4, 1.0), [25, -14]), jnp.float32)
    p = q.init(x, Role("activation", x.size))
    grid = q.grid(p)
    assert grid.low == 0 and grid.high == 15 and float(grid.zero_point).is_integer()
    y, slope = q(p, x), jax.grad(lambda x: jnp.sum(q(p, x)))(x)
    # Half of a step beyond the last level still rounds to it; farther out a code is clipped.
    ends = grid.scale * (np.array([-0.5, 15.5]) - grid.zero_point)
    np.testing.assert_array_equal(slope, (x > ends[0]) & (x < ends[1]))
    assert float(y[-2]) == pytest.approx(ends[1] - grid.scale / 2, rel=1e-6)
    assert float(y[-1]) == pytest.approx(ends[0] + grid.scale / 2, rel=1e-6)


def test_the_range_follows_the_batches_percentiles() -> None:
    q = FqnActivation(estimator=Percentile(gamma=0.9, decay=0.75))
    p = q.init(jnp.arange(101.0), Role("activation", 101))
    assert {k: float(v) for k, v in p.items() if k != "bits"} == pytest.approx(
        {"low": 10.0, "high": 90.0}
    )
    seen = q.observe(p, 2 * jnp.arange(101.0))
    assert [float(seen[name]) for name in ("low", "high")] == pytest.approx([12.5, 112.5])


def test_the_ablation_without_clipping_sees_outliers() -> None:
    q = FqnActivation(estimator=EmaMinMax())
    x = jnp.append(jnp.linspace(0, 1, 2000), 25.0)
    assert float(q.init(x, Role("activation", 2001))["high"]) == 25.0


def test_a_large_batch_is_thinned_evenly() -> None:
    few, all_of_it = (Percentile(0.9, 0.0, limit) for limit in (100, 10_000))
    x = jax.random.normal(jax.random.key(0), (10, 1000))
    low = high = jnp.float32(0)
    # Quantiles of 100 draws scatter by sqrt(0.09 / 100) / density(1.28) = 0.17.
    for thin, whole in zip(few.update(low, high, x), all_of_it.update(low, high, x), strict=True):
        assert 0 < abs(float(thin - whole)) < 4 * 0.17


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [("gamma", 0.5, r"\(0.5, 1\]"), ("decay", 1.5, r"\[0, 1\]"), ("limit", 0, "at least 1")],
)
def test_wrong_percentiles_are_refused(field: str, value: float, allowed: str) -> None:
    with pytest.raises(ValueError, match=rf"Percentile\.{field} must be .*{allowed}, got {value}"):
        Percentile(**{field: value})  # pyright: ignore[reportArgumentType]
