"""The widths of gradients in a record are those of the quantizers in force."""

import dataclasses
from pathlib import Path

import pytest

from qjax.methods.dorefa_gradient import DoReFaGradient
from qjax.methods.limited_precision import LimitedGradient
from qjax.methods.none import NoQuantizer
from qjax.methods.wage_update import WageSgd
from qjax.recipe import Recipe, Rule
from qjax.record import read
from qjax.train import CONF, build, train
from qjax.training.gradient_bits import check_error, gradient_bits
from qjax.training.optimizers import Sgd
from qjax.training.phases import Phase
from qjax.training.schedules import Constant
from tests.configs.compose import TINY, composed
from tests.training.small import rules, spec

WAGE = WageSgd(1.0, Constant(), bits=8)


@pytest.mark.parametrize(
    "error, optimizer, asked, recorded",
    [
        (DoReFaGradient(6), Sgd(0.1), (32, 6), (None, 6)),
        (LimitedGradient(4), Sgd(0.1), (4, 32), (4, None)),
        (LimitedGradient(4), Sgd(0.1), (4, 4), (4, 4)),  # both names, as the job says
        (LimitedGradient(4), WAGE, (4, 8), (4, 8)),
        (NoQuantizer(), Sgd(0.1), (32, 6), (None, None)),
        (None, Sgd(0.1), (8, 6), (None, None)),
        (LimitedGradient(5), WAGE, (None, None), (5, 8)),  # asked for by neither name
        (None, WAGE, (8, 8), (None, 8)),
    ],
)
def test_what_is_recorded(error, optimizer, asked, recorded) -> None:
    more = {} if error is None else {"error": error}
    phase = Phase("quantized", 1, optimizer)
    run = spec(phase, recipe=Recipe(rules(**more)), e_bits=asked[0], g_bits=asked[1])
    found = gradient_bits(run, run.quantized(run.make_model()))
    assert (found["e_bits"], found["g_bits"]) == recorded


def test_an_error_beside_the_gradients_has_its_own_width() -> None:
    first = Rule("first", error=LimitedGradient(4))
    recipe = Recipe((first, *rules(error=LimitedGradient(8))))
    run = spec(Phase("quantized", 1, Sgd(0.1)), recipe=recipe, e_bits=None, g_bits=8)
    found = gradient_bits(run, run.quantized(run.make_model()))
    assert found == {"e_bits": 4, "g_bits": 8}


def test_float_networks_have_none() -> None:
    run = spec(Phase("float", 1, Sgd(0.1), quantized=False), e_bits=8, g_bits=8)
    assert gradient_bits(run, run.make_model()) == {"e_bits": None, "g_bits": None}


@pytest.mark.parametrize("recipe", ["ends_float", "ends_8bit", "all", "weights_all"])
def test_an_error_that_no_rule_places_is_refused(recipe: str) -> None:
    words = ("+experiment=dorefa_w1a2g6", f"recipe={recipe}", *TINY)
    with pytest.raises(ValueError, match="DoReFaGradient.*recipe=NAME_errors"):
        build(composed(*words))
    build(composed(*words, "error=none", "g_bits=32"))
    build(composed(*words, "procedure=float"))


def test_an_error_beside_any_experiment_is_refused() -> None:
    words = ("+experiment=pact_w4a4", "+error=dorefa", "+g_bits=6", *TINY)
    with pytest.raises(ValueError, match="'ends_8bit' sets an error"):
        build(composed(*words))
    build(composed(*words, "recipe=all_errors"))


def test_a_phase_may_place_it() -> None:
    run = build(composed("+experiment=dorefa_w1a2g6", *TINY))
    without = Recipe(rules())
    phase = dataclasses.replace(run.phases[0], recipe=run.recipe)
    check_error(DoReFaGradient(6), without, (phase,))
    with pytest.raises(ValueError, match="recipe 'custom'"):
        check_error(DoReFaGradient(6), without, run.phases)


def test_a_run_records_them(tmp_path: Path) -> None:
    words = ("+experiment=dorefa_w1a2g6", *TINY, "model.width=4", f"run.folder={tmp_path}/run")
    record = read(train(composed(*words, "run.tensorboard=false")))
    assert (record.g_bits, record.e_bits, record.recipe) == (6, None, "ends_8bit_errors")


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "recipe").glob("*.yaml")))
def test_recipes_are_called_like_their_files(name: str) -> None:
    run = build(composed("+experiment=dorefa_w1a2g6", f"recipe={name}", "error=none", *TINY))
    assert run.recipe.name == name
