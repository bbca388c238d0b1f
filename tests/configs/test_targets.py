"""Every target takes every method: composed by one word, trained, converted, held to its law."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from qjax.agreement import _pending_codes, integer_law, roundings
from qjax.core.affine import Affine
from qjax.core.requantize import q31_even
from qjax.floatfree import check_float_free
from qjax.integerize import integerize
from qjax.launchers.errors import plain_errors
from qjax.layers.slots import Requantize
from qjax.record import read
from qjax.surgery import error_slots
from qjax.train import CONF, build, plan, train
from qjax.training.run import trained_model
from tests.configs.compose import TINY, composed

METHODS = ["pact_w4a4", "dorefa_w4a4", "lsq_w4a4", "minmax_w8a8"]
TARGETS = sorted(path.stem for path in (CONF / "target").glob("*.yaml") if path.stem != "none")
STEPS = ["data.train_size=64", "model.width=4", "w_bits=4", "a_bits=4"]
"""Two steps."""


USUAL = {("pact_w4a4", "shift"), ("lsq_w4a4", "tflite"), ("dorefa_w4a4", "onnxruntime")}
CASES = [
    pytest.param(method, target, marks=() if (method, target) in USUAL else pytest.mark.slow)
    for method in METHODS
    for target in TARGETS
]
"""All of them, a quarter of an hour; some of them always."""


def slack(policy: str, affine: Affine) -> float:
    """How near to a rounding boundary a value may lie for which the policy finds another code."""
    least = 1e-3
    if policy in ("q31_even", "shift"):
        return least
    (scale, *others) = (float(np.max(np.abs(scale))) for scale in affine.scales)
    if others:
        return least
    # A bias in whole units of the accumulator; gemmlowp rounds to 2^-shift of a step first.
    first = 2.0 ** min(float(np.frexp(scale)[1]), 0) if policy == "gemmlowp" else 0.0
    return least + scale / 2 + first / 2


@pytest.mark.parametrize(("method", "target"), CASES)
def test_a_method_runs_under_a_target(
    method: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = composed(f"+experiment={method}", f"target={target}", *TINY, *STEPS)
    folder = train(config)
    record = read(folder)
    assert record.target == target and target in folder.name
    assert record.recipe == ("conv_inputs" if target == "academic" else "deployable")
    spec = build(config)
    assert spec.target is not None and record.integer["policy"] == spec.target.policy
    model, _ = trained_model(spec, folder)
    shape = spec.data.shape
    network = integerize(model, spec.pixels, shape, spec.settings.policy)
    exact = integerize(model, spec.pixels, shape, q31_even)
    assert check_float_free(exact, shape) == []
    assert record.integer["float_free"] == (spec.target.policy != "f32_even")
    if target == "academic":
        assert {"conv1", "classifier"} < set(network.float_layers)
        assert not {"conv2", "conv3"} & set(network.float_layers)
        assert record.agreement["predictions"] == 1
        return
    assert not network.float_layers
    images = next(iter(spec.data.test_batches(32)))
    arriving = _pending_codes(network, jnp.asarray(images))
    twins = {place: twin for (place, _), twin in roundings(network).items()}
    for place, found in integer_law(model, network, images).items():
        twin = twins[place]
        assert isinstance(twin, Requantize)
        affine = twin.affine(arriving[place])
        assert len(affine.scales) == 1 or all(
            t.ints.dtype == np.int8 for t in arriving[place].terms
        )
        assert found.distance <= slack(spec.target.policy, affine), place
        if spec.target.policy == "shift":
            assert found.differing == 0, place


def test_without_a_target_nothing_is_added() -> None:
    words = ["+experiment=pact_w4a4", *TINY]
    assert "target" not in composed(*words)
    assert composed(*words) == composed(*words, "target=none")
    spec = build(composed(*words))
    assert spec.names["target"] == "none" and spec.settings.policy_name == "q31_even"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["target=tflite", "recipe=all"], "target=tflite decides what recipe=all asks for"),
        (["target=shift", "run.policy=q31"], r"change the target itself \(target.policy=...\)"),
        (["target=tflite", "w_bits=8"], r"weights as integers from -127 to 127 .* -255 to 255"),
        (["target=onnxruntime_7bit", "w_bits=7", "weight=lsq"], "from -64 to 63; choose fewer"),
        (["target=tflite", "act=none"], "the output of layer 'act1' stays float; choose a quant"),
        (["target=shift", "weight=elq", "w_bits=2"], "one uniform grid.*ElqWeight has none"),
        (["target=shift", "bn=folded_correction"], "which folded batch normalization cannot undo"),
        (["target=shift", "data.height=12"], "layer 'mean'.*shift: scales.*power-of-two"),
        (["target=academic", "bn=folded_correction"], "bn chooses FoldedCorrected.*leave bn out"),
        (["target.policy=q32", "target=tflite"], "policy must be one of"),
    ],
)
def test_what_a_target_cannot_run_is_an_error_before_any_step(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit), plain_errors():
        train(composed("+experiment=pact_w4a4", *TINY, *STEPS, *words))
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert re.search(message, error), error
    assert not list(tmp_path.iterdir()), "nothing is written before the error"


def test_quantized_gradients_stay_under_a_target() -> None:
    spec = build(composed("+experiment=dorefa_w1a2g6", "target=tflite", *TINY, "model.width=4"))
    model = spec.quantized(spec.make_model())
    assert set(error_slots(model)) == {"conv2.error", "conv3.error"}


def test_a_float_baseline_needs_nothing_of_its_target() -> None:
    for target in TARGETS:
        planned = plan(composed("+experiment=float", f"target={target}", *TINY))
        planned.spec.check_target()
