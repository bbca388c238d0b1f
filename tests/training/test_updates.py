"""Updates: traced numbers, groups by label, clipping, and what the state holds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from qjax.training.optimizers import Adam, AdamW, Sgd
from qjax.training.schedules import Cosine, Step
from qjax.training.updates import OptimizerState, learning_rate, set_hyperparams
from tests.training.steps import (
    LABELS,
    PARAMS,
    assert_close,
    first_update,
    gradients,
    momentum_rule,
    reference,
    run,
)


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


def test_state_is_a_plain_tree_of_arrays():
    state = Sgd(0.1).build(8, 2, LABELS).init(PARAMS)
    assert isinstance(state, OptimizerState)
    assert sorted(state.hyperparams) == [
        "learning_rate",
        "quantizer_learning_rate_scale",
        "weight_decay",
    ]
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
