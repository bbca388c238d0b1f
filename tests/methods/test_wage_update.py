"""WAGE's update as one program for many runs; its numbers are held in `test_wage.py`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from qjax.methods.wage_update import WageSgd
from qjax.training.programs import untraced
from qjax.training.schedules import Constant


def test_seed_and_rate_live_in_the_state() -> None:
    one, other = (WageSgd(rate, Constant(), seed=seed) for rate, seed in ((8.0, 0), (1.0, 3)))
    assert untraced(one) == untraced(other) != untraced(dataclasses.replace(one, scaled=False))
    w, g = jnp.zeros((50, 40)), jax.random.normal(jax.random.key(1), (50, 40))
    rules = [rule.build(4, 2, "weight") for rule in (one, other)]
    update = jax.jit(rules[0].update)
    ends = []
    for rule in rules:
        state = rule.init(w)
        moved, kept = update(g, state, w)
        alone, same = jax.jit(rule.update)(g, state, w)
        np.testing.assert_array_equal(moved, alone)
        jax.tree.map(np.testing.assert_array_equal, kept, same)
        ends.append(np.asarray(moved))
    assert not np.array_equal(*ends)
