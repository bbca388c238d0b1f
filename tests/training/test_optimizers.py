"""Optimizers: the update rules in numpy, and checked, hashable values."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from qjax.training.optimizers import Adam, AdamW, Sgd
from qjax.training.schedules import Step
from tests.training.steps import PARAMS, adam_rule, assert_close, momentum_rule, reference, run


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_with_coupled_decay_follows_its_formula(nesterov):
    optimizer = Sgd(0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.05)
    assert_close(run(optimizer)[0], reference(momentum_rule(0.9, nesterov), decay=0.05))


def test_sgd_without_momentum_is_plain_descent_and_keeps_no_memory():
    params, state = run(Sgd(0.1, momentum=0, weight_decay=0.05))
    assert_close(params, reference(lambda name, t, g: g, decay=0.05))
    assert not jax.tree.leaves(state.inner)


def test_adam_couples_its_decay():
    optimizer = Adam(0.1, b1=0.8, b2=0.9, eps=1e-5, weight_decay=0.5)
    assert_close(run(optimizer)[0], reference(adam_rule(0.8, 0.9, 1e-5), decay=0.5))


def test_adamw_decouples_its_decay():
    optimizer = AdamW(0.1, b1=0.8, b2=0.9, eps=1e-5, weight_decay=0.5)
    expected = reference(adam_rule(0.8, 0.9, 1e-5), decay=0.5, decoupled=True)
    assert_close(run(optimizer)[0], expected)


def test_quantizer_group_has_its_own_rate_and_no_decay():
    optimizer = Sgd(0.1, weight_decay=0.05, quantizer_learning_rate_scale=0.01)
    expected = reference(momentum_rule(0.9, True), decay=0.05, quantizer_scale=0.01)
    assert_close(run(optimizer)[0], expected)


def test_quantizer_scale_of_zero_holds_the_group():
    params, _ = run(Adam(0.1, quantizer_learning_rate_scale=0))
    assert params["clip"] == PARAMS["clip"]
    assert np.all(params["kernel"] != PARAMS["kernel"])


def test_values_are_normalised_equal_and_hashable():
    assert Sgd(1, momentum=0, clip_norm=1) == Sgd(1.0, momentum=0.0, clip_norm=1.0)
    assert hash(Adam(1, schedule=Step([1]))) == hash(Adam(1.0, schedule=Step((1.0,))))
    assert isinstance(dataclasses.replace(AdamW(0.1), learning_rate=1).learning_rate, float)


@pytest.mark.parametrize("kind", [Sgd, Adam, AdamW])
@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("learning_rate", 0, r"\(0, inf\)"),
        ("learning_rate", float("nan"), r"\(0, inf\)"),
        ("weight_decay", -0.1, r"\[0, inf\)"),
        ("clip_norm", 0, r"\(0, inf\)"),
        ("quantizer_learning_rate_scale", -1, r"\[0, inf\)"),
    ],
)
def test_shared_fields_are_checked(kind, field, value, allowed):
    with pytest.raises(ValueError, match=rf"{kind.__name__}\.{field} .*{allowed}, got {value}"):
        kind(**({"learning_rate": 0.1} | {field: value}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sgd(0.1, momentum=1), r"Sgd.momentum .*\[0, 1\), got 1"),
        (lambda: Adam(0.1, b1=1), r"Adam.b1 .*\[0, 1\), got 1"),
        (lambda: AdamW(0.1, b2=-0.1), r"AdamW.b2 .*\[0, 1\), got -0.1"),
        (lambda: Adam(0.1, eps=0), r"Adam.eps .*\(0, inf\), got 0"),
    ],
)
def test_own_fields_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "fields",
    [{"learning_rate": "0.1"}, {"nesterov": 1}, {"schedule": "cosine"}, {"clip_norm": "1"}],
)
def test_wrong_types_are_refused(fields):
    with pytest.raises(TypeError):
        Sgd(**({"learning_rate": 0.1} | fields))


# A method's own update has knobs of its experiment and is tested with its method.
CONFIGS = [
    path
    for path in sorted((Path(__file__).parents[2] / "conf" / "optim").glob("*.yaml"))
    if "_target_: qjax.training" in path.read_text(encoding="utf-8").split("schedule:")[0]
]


def test_there_are_configs():
    assert {path.stem for path in CONFIGS} >= {"sgd", "sgd_step", "adam", "adam_step", "adamw"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_builds_a_hashable_value_that_moves_the_weights(path):
    optimizer = instantiate(OmegaConf.load(path))
    hash(optimizer)
    params, _ = run(optimizer)
    assert np.all(params["kernel"] != PARAMS["kernel"])
