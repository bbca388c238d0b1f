"""Recipes: the first rule that matches decides a slot, and nothing is left to chance."""

import functools

import jax.numpy as jnp
import pytest
from flax import nnx

from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.dorefa import DoReFaWeight
from qjax.methods.none import NoQuantizer
from qjax.methods.pact import Pact
from qjax.models.small import SmallCNN
from qjax.probe import Call, probe
from qjax.recipe import (
    Recipe,
    Rule,
    all_layers,
    conv_inputs,
    deployable,
    ends_8bit,
    ends_float,
    first_and_last,
)

W, A, W8, A8, KEEP = DoReFaWeight(4), Pact(4), AffineWeight(8), AffineActivation(8), NoQuantizer()
BODY = Rule(weight=W, output=A)


@functools.cache
def calls() -> tuple[Call, ...]:
    """A probed network."""
    return tuple(probe(SmallCNN(width=4, rngs=nnx.Rngs(0)), jnp.ones((2, 8, 8, 1))))


def resolved(*rules: Rule) -> dict:
    """What rules choose."""
    return Recipe(rules).resolve(list(calls()))


def test_the_first_match_wins_slot_by_slot():
    chosen = resolved(Rule("conv2", weight=W8), Rule("conv*", weight=W, input=A8), BODY)
    assert chosen["conv2", "weight"] == W8
    assert chosen["conv2", "input"] == A8
    assert chosen["conv1", "weight"] == W
    assert ("classifier", "input") not in chosen


def test_first_and_last_go_by_execution():
    assert first_and_last(calls()) == ("conv1", "classifier")
    chosen = resolved(Rule("first", weight=W8), Rule("last", weight=KEEP), BODY)
    assert (chosen["conv1", "weight"], chosen["classifier", "weight"]) == (W8, KEEP)
    assert chosen["conv2", "weight"] == W


def test_outputs_of_other_layers_need_their_kind_named():
    assert not any(path in ("add", "pool") for path, _ in resolved(BODY))
    chosen = resolved(Rule(kind="add", output=A8), BODY)
    assert chosen["add", "output"] == A8 and ("pool", "output") not in chosen


def test_pending_sums_are_those_that_no_activation_rounds():
    chosen = resolved(Rule(output=A8, pending=True), BODY)
    assert {path for (path, slot), q in chosen.items() if slot == "output" and q == A8} == {
        "conv2",  # before the pooling
        "conv3",  # before the addition
        "mean",
        "classifier",
    }


def test_deployable_covers_every_tensor():
    chosen = deployable(W, A, W8, A8, A8).resolve(list(calls()))
    assert {path for (path, slot), q in chosen.items() if slot == "input"} == {"conv1"}
    assert chosen["conv1", "weight"] == chosen["classifier", "weight"] == W8
    assert chosen["act2", "output"] == A and chosen["classifier", "output"] == A8
    assert not {("add", "output"), ("pool", "output"), ("conv1", "output")} & set(chosen)


def test_conv_inputs_leaves_sums_and_their_activations_alone():
    list_ = list(calls())
    chosen = conv_inputs(W, A, KEEP).resolve(list_)
    weighted = [call.path for call in list_ if call.layer.kind in ("conv", "dense")]
    body = weighted[1:-1]
    assert {place for place, q in chosen.items() if q == A} == {(path, "input") for path in body}
    assert {place for place, q in chosen.items() if q == W} == {(path, "weight") for path in body}
    assert body and all(q == KEEP for (_, slot), q in chosen.items() if slot == "output")


def test_policies_say_what_the_ends_are():
    list_ = list(calls())
    kept = ends_float(W, A, KEEP).resolve(list_)
    assert kept["conv1", "weight"] == kept["classifier", "weight"] == KEEP
    assert not any(slot == "input" for _, slot in kept)
    bytes_ = ends_8bit(W, A, W8, A8).resolve(list_)
    assert {k for k, q in bytes_.items() if q in (W8, A8)} == {
        (path, slot) for path in ("conv1", "classifier") for slot in ("weight", "input")
    }
    alike = all_layers(W, A, A8, A8).resolve(list_)
    assert alike["conv1", "weight"] == alike["classifier", "weight"] == W
    assert alike["conv1", "input"] == alike["classifier", "input"] == A8


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ((Rule(output=A),), ("the weight of layer 'conv1' (conv)", "add a rule", "NoQuantizer")),
        ((Rule(weight=W),), ("the output of layer 'act1' (act)", "add a rule")),
        ((Rule("blok.*", weight=W8), BODY), ("'blok.*'", "decides nothing", "conv1", "classifier")),
        ((BODY, Rule("conv1", weight=W8)), ("'conv1'", "earlier rules decided already")),
        ((Rule(kind="concat", output=A8), BODY), ("(kind concat)", "decides nothing")),
    ],
)
def test_gaps_and_idle_rules_are_named(rules: tuple[Rule, ...], words: tuple[str, ...]):
    with pytest.raises(ValueError) as caught:
        resolved(*rules)
    for part in words:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"weight": A}, ("Rule.weight got Pact", "serves activation", "the role weight")),
        ({"output": W}, ("Rule.output got DoReFaWeight", "serves weight", "the role activation")),
        ({"input": W8}, ("Rule.input got AffineWeight", "the role activation")),
        ({"error": A}, ("Rule.error got Pact", "the role error")),
        ({"kind": "convolution", "weight": W}, ("Rule.kind", "'conv'", "got 'convolution'")),
        ({"match": "conv1"}, ("Rule(match='conv1') sets no quantizer", "weight, input, output")),
    ],
)
def test_wrong_rules_name_field_value_and_remedy(fields: dict, words: tuple[str, ...]):
    with pytest.raises(ValueError) as caught:
        Rule(**fields)
    for part in words:
        assert part in str(caught.value)


def test_recipes_are_values():
    assert Recipe([BODY]) == Recipe((BODY,)) and hash(Recipe([BODY])) == hash(Recipe((BODY,)))  # pyright: ignore


def test_a_model_without_weights_is_refused():
    acts = [call for call in calls() if call.layer.kind == "act"]
    with pytest.raises(ValueError, match="no layer with weights; recipes need a conv or dense"):
        Recipe((Rule(output=A),)).resolve(acts)
