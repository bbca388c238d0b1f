"""Optimizers: the update rules in numpy, the three groups, and traced numbers."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hydra.utils import instantiate
from omegaconf import OmegaConf

from qjax.training.optimizers import Adam, AdamW, Sgd
from qjax.training.schedules import Cosine, Step
from qjax.training.updates import OptimizerState, learning_rate, set_hyperparams

PARAMS = {
    "kernel": np.asarray([0.5, -1.0, 2.0], np.float32),
    "bias": np.asarray([0.3], np.float32),
    "clip": np.asarray(6.0, np.float32),
}
LABELS = {"kernel": "weight", "bias": "norm", "clip": "quantizer"}


def first_update(optimizer, grads, params=PARAMS) -> tuple[Any, Any]:
    """Updates and state after one eager update."""
    rule = optimizer.build(8, 2, LABELS)
    return rule.update(grads, rule.init(params), params)


def gradients(count):
    """A fixed sequence of gradients."""
    rng = np.random.default_rng(7)
    return [
        {k: rng.normal(size=v.shape).astype(np.float32) for k, v in PARAMS.items()}
        for _ in range(count)
    ]


def run(optimizer, count=6) -> tuple[Any, Any]:
    """Parameters after `count` compiled updates, and the last state."""
    rule = optimizer.build(total_steps=6, steps_per_epoch=2, labels=LABELS)
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = rule.init(params)

    @jax.jit
    def step(params, state, grads):
        updates, state = rule.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for grads in gradients(count):
        params, state = step(params, state, grads)
    return jax.tree.map(np.asarray, params), state


def reference(rule, count=6, rate=lambda t: 0.1, decay=0.0, quantizer_scale=1.0, decoupled=False):
    """The same in float64 numpy: `rule(name, t, g)` returns the direction."""
    params = {k: v.astype(np.float64) for k, v in PARAMS.items()}
    for t, grads in enumerate(gradients(count)):
        for name, g in grads.items():
            own_decay = decay if LABELS[name] == "weight" else 0.0
            scale = quantizer_scale if LABELS[name] == "quantizer" else 1.0
            before = params[name]
            g = g.astype(np.float64)
            direction = rule(name, t, g if decoupled else g + own_decay * before)
            if decoupled:
                direction = direction + own_decay * before
            params[name] = before - rate(t) * scale * direction
    return params


def momentum_rule(momentum, nesterov):
    memory = {k: np.zeros(v.shape) for k, v in PARAMS.items()}

    def rule(name, t, g):
        memory[name] = momentum * memory[name] + g
        return g + momentum * memory[name] if nesterov else memory[name]

    return rule


def adam_rule(b1, b2, eps):
    first = {k: np.zeros(v.shape) for k, v in PARAMS.items()}
    second = {k: np.zeros(v.shape) for k, v in PARAMS.items()}

    def rule(name, t, g):
        first[name] = b1 * first[name] + (1 - b1) * g
        second[name] = b2 * second[name] + (1 - b2) * g * g
        mean = first[name] / (1 - b1 ** (t + 1))
        square = second[name] / (1 - b2 ** (t + 1))
        return mean / (np.sqrt(square) + eps)

    return rule


def assert_close(actual, expected):
    for name in PARAMS:
        np.testing.assert_allclose(actual[name], expected[name], rtol=2e-5, atol=2e-6, err_msg=name)


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


def test_schedule_multiplies_the_rate_after_momentum_and_is_readable():
    optimizer = Sgd(0.1, schedule=Step(boundaries=(1, 2), factor=0.1))
    params, state = run(optimizer)
    rates = [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    assert_close(params, reference(momentum_rule(0.9, True), rate=rates.__getitem__))
    np.testing.assert_allclose(learning_rate(state), 0.001, rtol=1e-6)
    assert int(state.step) == 6


def test_learning_rate_before_the_first_update_is_the_one_it_will_use():
    state = Sgd(0.1, schedule=Cosine(warmup_epochs=2)).build(8, 2, LABELS).init(PARAMS)
    np.testing.assert_allclose(learning_rate(state), 0.025, rtol=1e-6)


def test_learning_rate_is_found_inside_a_chain():
    rule = optax.chain(optax.identity(), Sgd(0.2).build(8, 2, LABELS))
    np.testing.assert_allclose(learning_rate(rule.init(PARAMS)), 0.2, rtol=1e-6)
    with pytest.raises(ValueError, match="found 0"):
        learning_rate(optax.identity().init(PARAMS))


def test_clip_norm_bounds_the_global_norm_of_all_groups_together():
    grads = gradients(1)[0]
    updates, _ = first_update(Sgd(1.0, momentum=0, clip_norm=0.5), grads)
    norm = np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in grads.values()))
    assert norm > 0.5
    for name, g in grads.items():
        np.testing.assert_allclose(updates[name], -g * 0.5 / norm, rtol=1e-5)


def test_clipping_comes_before_the_decay():
    optimizer = Sgd(1.0, momentum=0, weight_decay=10.0, clip_norm=1e-6)
    updates, _ = first_update(optimizer, gradients(1)[0])
    np.testing.assert_allclose(updates["kernel"], -10 * PARAMS["kernel"], rtol=1e-5)


def test_sweep_over_traced_numbers_compiles_once():
    optimizer = Sgd(0.1, weight_decay=0.05)
    rule = optimizer.build(8, 2, LABELS)
    traces = []

    @jax.jit
    def step(params, state, grads):
        traces.append(1)
        updates, state = rule.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    grads = gradients(1)[0]
    for rate, decay, scale in ((0.1, 0.05, 1.0), (0.02, 0.0, 0.1)):
        state = set_hyperparams(
            rule.init(PARAMS),
            learning_rate=rate,
            weight_decay=decay,
            quantizer_learning_rate_scale=scale,
        )
        params, state = step(PARAMS, state, grads)
        own = Sgd(rate, weight_decay=decay, quantizer_learning_rate_scale=scale)
        updates, _ = first_update(own, grads)
        expected = optax.apply_updates(PARAMS, updates)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params, expected)
        np.testing.assert_allclose(learning_rate(state), rate, rtol=1e-6)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"momentum": 0.5}, "unknown hyperparameter 'momentum'; allowed: learning_rate"),
        ({"learning_rate": 0.0}, r"learning_rate .*\(0, inf\), got 0.0"),
        ({"weight_decay": -1.0}, r"weight_decay .*\[0, inf\), got -1"),
    ],
)
def test_set_hyperparams_checks_names_and_values(values, message):
    state = Sgd(0.1).build(8, 2, LABELS).init(PARAMS)
    with pytest.raises(ValueError, match=message):
        set_hyperparams(state, **values)


def test_bfloat16_parameters_keep_their_dtype_and_the_state_its_types():
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), PARAMS)
    for optimizer in (
        Sgd(0.1, weight_decay=0.1, clip_norm=1.0),
        Adam(0.1, weight_decay=0.1),
        AdamW(0.1),
    ):
        rule = optimizer.build(8, 2, LABELS)
        state = rule.init(params)
        updates, after = rule.update(params, state, params)
        types = [x.dtype for x in jax.tree.leaves(state)]
        assert types == [x.dtype for x in jax.tree.leaves(after)]
        new = optax.apply_updates(params, updates)
        assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(new))


def test_labels_may_be_the_state_of_an_nnx_module():
    module = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    params = nnx.state(module, nnx.Param)
    labels = jax.tree_util.tree_map_with_path(
        lambda path, _: "weight" if "kernel" in str(path) else "norm", params
    )
    rule = Sgd(1.0, momentum=0, weight_decay=0.5).build(8, 2, labels)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(rule.update)(zero, rule.init(params), params)
    np.testing.assert_allclose(updates["kernel"][...], -0.5 * module.kernel[...], rtol=1e-6)
    assert not np.any(updates["bias"][...])


def test_label_errors_name_the_parameter():
    with pytest.raises(
        ValueError, match="label of b/c must be one of weight, norm, quantizer, got 'x'"
    ):
        Sgd(0.1).build(8, 2, {"a": "weight", "b": {"c": "x"}})
    rule = Sgd(0.1).build(8, 2, {"kernel": "weight", "bias": "norm", "other": "norm"})
    with pytest.raises(ValueError, match=r"without a label: \['clip'\]; .* parameter: \['other'\]"):
        rule.init(PARAMS)


def test_update_without_parameters_says_what_to_pass():
    rule = Sgd(0.1).build(8, 2, LABELS)
    with pytest.raises(ValueError, match="update needs the parameters"):
        rule.update(PARAMS, rule.init(PARAMS))


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


CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "optim").glob("*.yaml"))


def test_there_are_configs():
    assert {path.stem for path in CONFIGS} >= {"sgd", "sgd_step", "adam", "adam_step", "adamw"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_builds_a_hashable_value_that_moves_the_weights(path):
    optimizer = instantiate(OmegaConf.load(path))
    hash(optimizer)
    params, _ = run(optimizer)
    assert np.all(params["kernel"] != PARAMS["kernel"])


def test_state_is_a_plain_tree_of_arrays():
    state = Sgd(0.1).build(8, 2, LABELS).init(PARAMS)
    assert isinstance(state, OptimizerState)
    assert sorted(state.hyperparams) == [
        "learning_rate",
        "quantizer_learning_rate_scale",
        "weight_decay",
    ]
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
