"""A small set of parameters, and what the optimizers must do to it, in float64 numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

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
