"""Moving-average ranges: PyTorch's numbers, and no more than the range seen."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from qjax.calibration.ema import EmaMinMax
from qjax.calibration.estimator import Estimator
from qjax.core.quantizer import Role
from qjax.methods.affine import AffineActivation
from tests.strategies import tensors

FILE = Path(__file__).parents[1] / "vectors" / "golden_deployment.json"
CASE = json.loads(FILE.read_text())["other_methods"]["pytorch_observers"]["moving_average_minmax"]


def test_a_moving_average_observer():
    estimator = EmaMinMax(decay=1 - CASE["c"])
    first, *rest = (jnp.asarray(batch, jnp.float32) for batch in CASE["batches_(min,max)"])
    low, high = estimator.first(first)
    for batch in rest:
        low, high = estimator.update(low, high, batch)
    np.testing.assert_allclose([low, high], [CASE["min"], CASE["max"]], rtol=1e-6)
    p = AffineActivation(8).init(first, Role("activation", 2)) | {"low": low, "high": high}
    grid = AffineActivation(8).grid(p)
    np.testing.assert_allclose(grid.scale, CASE["qp"][0], rtol=1e-6)
    assert grid.zero_point == CASE["qp"][1]


@given(tensors((8,)), tensors((8,)))
def test_the_range_moves_towards_the_batch_and_not_beyond(x: np.ndarray, y: np.ndarray):
    estimator = EmaMinMax(decay=0.75)
    before = np.asarray(estimator.first(jnp.asarray(x)))
    after = np.asarray(estimator.update(*estimator.first(jnp.asarray(x)), jnp.asarray(y)))
    batch = np.array([y.min(), y.max()])
    np.testing.assert_allclose(after, 0.75 * before + 0.25 * batch, rtol=1e-5, atol=1e-2)


def test_no_memory_is_the_batchs_own_range():
    estimator = EmaMinMax(decay=0.0)
    low, high = estimator.update(jnp.float32(-9), jnp.float32(9), jnp.asarray([1.0, 2.0]))
    assert (float(low), float(high)) == (1.0, 2.0)


def test_it_is_an_estimator_and_a_value():
    assert isinstance(EmaMinMax(), Estimator)
    assert EmaMinMax(0.9) == EmaMinMax(0.9) and hash(EmaMinMax(0.9)) != hash(EmaMinMax(0.8))


@pytest.mark.parametrize("decay", [1.0, -0.1, 2.0, float("nan")])
def test_a_wrong_decay_names_field_value_and_range(decay: float):
    with pytest.raises(ValueError, match=rf"EmaMinMax\.decay must be in \[0, 1\), got {decay}"):
        EmaMinMax(decay)
