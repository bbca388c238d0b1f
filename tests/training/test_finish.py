"""What the end of a run says of its integer form."""

from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.none import NoQuantizer
from qjax.recipe import Recipe, Rule
from qjax.training.finish import evaluate
from tests.training.small import spec

FLOAT = NoQuantizer()


def outcome(*ends: Rule):
    """The evaluation of an untrained network whose conv has these rules before the usual ones."""
    usual = (Rule("last", weight=FLOAT), Rule(weight=FLOAT, output=AffineActivation(4)))
    run = spec(recipe=Recipe((*ends, *usual)))
    return evaluate(run, run.quantized(run.make_model()), None)


def test_float_weights_everywhere_leave_no_integer_form() -> None:
    found = outcome()
    assert found.accuracy["simulated"] is not None and found.accuracy["integer"] is None
    assert found.agreement == {"predictions": None, "codes": {}}
    assert found.integer["float_free"] is False and found.integer["policy"] is None
    assert {"conv", "classifier"} <= set(found.integer["float_layers"])
    assert found.bit_operations is None


def test_one_integer_layer_is_enough() -> None:
    found = outcome(Rule("first", weight=AffineWeight(4), input=AffineActivation(8)))
    assert found.accuracy["integer"] is not None and found.integer["float_free"] is True
    assert found.integer["float_layers"] == ["classifier"] and found.integer["accumulator_bits"]
