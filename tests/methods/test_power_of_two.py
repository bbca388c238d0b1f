"""Power-of-two scales around every method: values by hand, and the laws of quantizers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core.powers import nearest_power, power_above
from qjax.core.quantizer import Role
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.dorefa import DoReFaActivation, DoReFaWeight
from qjax.methods.dorefa_gradient import DoReFaGradient
from qjax.methods.elq import ElqWeight
from qjax.methods.lsq import Lsq
from qjax.methods.none import NoQuantizer
from qjax.methods.pact import Pact
from qjax.methods.power_of_two import PowerOfTwo
from qjax.methods.wage import WageWeight
from tests.laws import test_codes as codes_laws
from tests.laws import test_gradients as gradient_laws
from tests.laws import test_programs as program_laws
from tests.laws.discovery import FAMILIES, SHAPE, Case

KINDS = {(type(case.quantizer), case.kind): case for case in FAMILIES}
WRAPPED = [
    dataclasses.replace(case, quantizer=PowerOfTwo(case.quantizer, up=index % 2 == 1))
    for index, case in enumerate(KINDS.values())
    if not isinstance(case.quantizer, ElqWeight)
]
"""Every method's weights and activations, under one rounding or the other."""

over = pytest.mark.parametrize("case", WRAPPED, ids=lambda case: case.name)


def test_powers_near_a_number():
    x = jnp.array([0.25, 0.3, 0.35, 0.36, 0.5, 3e-9], jnp.float32)
    exact = np.log2(np.asarray(x, np.float64))
    np.testing.assert_array_equal(power_above(x), 2 ** np.ceil(exact))
    np.testing.assert_array_equal(nearest_power(x), 2 ** np.rint(exact))


def test_lsq_by_hand():
    q = PowerOfTwo(Lsq(bits=4, signed=True))
    p = q.init(jnp.ones(4), Role("weight", 4)) | {"step": jnp.float32(0.3)}
    x = jnp.array([-2.5, -0.2, 0.3, 0.4, 9.0])
    # 0.3 = 0.6 * 2^-1 rounds to t = 1/4, r = 5/6: codes round(4 x) in -8..7.
    assert q(p, x).tolist() == [-2.0, -0.25, 0.25, 0.5, 1.75]
    assert jax.grad(lambda x: q(p, x).sum())(x).tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
    slope = jax.grad(lambda s: q(p | {"step": s}, x).sum())(p["step"])
    # r times the inner rule at x / t, with its own scale 1 / sqrt(N Q_P) = 1 / sqrt(28).
    inner = -8 + (-1 + 0.8) + (1 - 1.2) + (2 - 1.6) + 7
    assert slope == pytest.approx(0.25 / 0.3 * inner / np.sqrt(28), rel=1e-5)
    assert PowerOfTwo(Lsq(4), up=True)(p, x).tolist() == [-2.5, 0.0, 0.5, 0.5, 3.5]


def test_the_clip_of_pact_moves_with_its_scale():
    q = PowerOfTwo(Pact(bits=4, alpha_init=6.0))
    p = q.init(jnp.ones(1), Role("activation", 1))
    x = jnp.array([-1.0, 0.3, 7.4, 7.6])
    # 6 / 15 = 0.4 rounds to t = 1/2, r = 5/4: the clip lies at 7.5.
    assert q(p, x).tolist() == [0.0, 0.5, 7.5, 7.5]
    assert jax.grad(lambda x: q(p, x).sum())(x).tolist() == [0.0, 1.0, 1.0, 0.0]
    slope = jax.grad(lambda a: q(p | {"alpha": a}, x).sum())(p["alpha"])
    assert float(slope) == 1.25
    assert float(q.penalty(p)) == float(Pact(bits=4).penalty(p)) > 0


def test_dorefa_keeps_its_codes_and_its_zero_between_them():
    q, w = PowerOfTwo(DoReFaWeight(4)), jnp.array([-1.0, 0.2, 0.9])
    p = q.init(w, Role("weight", 3))
    (ours,), (theirs,) = q.codes(p, w), DoReFaWeight(4).codes(p, w)
    np.testing.assert_array_equal(ours.codes, theirs.codes)
    assert (float(ours.scale), float(ours.zero_point)) == (0.125, 7.5)
    np.testing.assert_allclose(q(p, w), DoReFaWeight(4)(p, w) * 0.125 * 15 / 2, rtol=1e-6)


def test_a_zero_point_stays_where_it_is():
    q = PowerOfTwo(AffineActivation(bits=2), up=True)
    p = q.init(jnp.array([-1.0, 2.0]), Role("activation", 2)) | {"high": jnp.float32(2.3)}
    # The scale 1.1 rises to 2, zero stays at code 1.
    assert q(p, jnp.array([-9.0, -0.9, 1.1, 9.0])).tolist() == [-2.0, 0.0, 2.0, 4.0]
    grid = q.grid(p)
    assert (grid.scale, grid.zero_point, grid.low, grid.high) == (2.0, 1.0, 0, 3)


def test_a_scale_that_is_a_power_keeps_the_papers_codes():
    w = jnp.asarray(np.random.default_rng(0).normal(size=(64, 4)), jnp.float32)
    p = WageWeight(bits=2).init(w, Role("weight", 256))
    np.testing.assert_array_equal(PowerOfTwo(WageWeight(bits=2))(p, w), WageWeight(bits=2)(p, w))


def test_what_has_no_single_grid_is_refused():
    with pytest.raises(ValueError, match="ElqWeight has none; choose pact, dorefa"):
        PowerOfTwo(ElqWeight(2)).init(jnp.ones((3, 3)), Role("weight", 9))
    with pytest.raises(ValueError, match="DoReFaGradient draws noise"):
        PowerOfTwo(DoReFaGradient(6))
    assert PowerOfTwo(NoQuantizer()).is_float


def test_names_papers_and_kinds_are_both():
    q = PowerOfTwo(Pact(4))
    assert q.label == "PowerOfTwo(Pact)" and q.references == ("jain2020tqt", "choi2018pact")
    assert q.rectifies and not PowerOfTwo(Lsq(4)).rectifies
    assert q.kinds == Pact.kinds and q.stripped().of.bits is None  # pyright: ignore
    assert PowerOfTwo(DoReFaWeight(4)).rescales and PowerOfTwo(AffineWeight(4)).not_idempotent
    assert hash(q) == hash(PowerOfTwo(Pact(4))) and q != PowerOfTwo(DoReFaActivation(4))


@over
def test_every_scale_is_a_power_of_two(case: Case):
    x = case.sample(0)
    (term,) = case.bound.encode(case.numbers(x), x).terms
    assert np.all(np.frexp(term.scale.value)[0] == 0.5)


@over
def test_the_laws_hold(case: Case):
    codes_laws.test_simulation_decodes_what_encode_stores(case, 0)
    codes_laws.test_codes_lie_in_the_declared_range(case)
    program_laws.test_eager_and_compiled_agree(case)
    gradient_laws.test_gradients_are_finite(case, "outlier")
    gradient_laws.test_the_tensor_receives_a_gradient(case)
    if "learned" in case.quantizer.kinds.values():
        gradient_laws.test_every_learned_number_moves_in_two_steps(case)
    if not case.quantizer.not_idempotent:
        codes_laws.test_quantizing_twice_changes_nothing(case)
    if case.kind == "weight":
        codes_laws.test_training_computes_the_codes_that_encode_stores(case, SHAPE)
    else:
        codes_laws.test_grid_is_where_encode_rounds(case)
        codes_laws.test_ties_go_to_the_even_step(case)
