"""Every experiment composes, trains some steps on synthetic images, converts and is recorded."""

import re
from pathlib import Path

import pytest

from qjax.evaluate import reevaluate
from qjax.record import read
from qjax.train import CONF, build, train
from tests.configs.compose import EXPERIMENTS, IMAGENET, TINY, composed, uses_own_model


@pytest.mark.parametrize("name", sorted(set(EXPERIMENTS) - set(IMAGENET)))
def test_experiment_runs_to_its_record(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = [] if uses_own_model(name) else ["model=small_cnn", "model.width=4"]
    side = composed(f"+experiment={name}").model.get("image", 8)
    size = [f"data.height={side}", f"data.width={side}"] if uses_own_model(name) else []
    config = composed(f"+experiment={name}", *TINY, *size, *small)
    folder = train(config)
    record = read(folder)
    assert record.experiment == config.experiment
    assert {"bn": record.bn, "procedure": record.procedure} == dict(config.choices)
    if record.accuracy["simulated"] is not None:
        # ELQ and signed inputs leave every layer with weights in float.
        some = bool(record.integer["accumulator_bits"])
        assert record.integer["float_free"] == (record.accuracy["integer"] is not None) == some
        assert some == (name not in ("elq_w2a32", "signed_inputs", "tanh_or_clip"))
        again = reevaluate(folder, [])
        assert again.accuracy == dict(record.accuracy)
        assert again.agreement == dict(record.agreement)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_header_is_a_notebook_entry(name: str) -> None:
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    for field in ("claim", "command", "expected", "measured", "differs"):
        assert re.search(rf"^# {field}\s+\S", text, re.M), f"{name}.yaml: no line '# {field}'"
    assert f"+experiment={name}" in text


@pytest.mark.parametrize("name", ["pact_w4a4", "dorefa_w4a4", "lsq_w4a4"])
@pytest.mark.parametrize("w_bits, a_bits", [(2, 2), (8, 4)])
def test_bits_recipes_and_models_compose_onto_experiments(
    name: str, w_bits: int, a_bits: int
) -> None:
    spec = build(
        composed(
            f"+experiment={name}",
            f"w_bits={w_bits}",
            f"a_bits={a_bits}",
            "data=synthetic",
            "data.height=32",
            "data.width=32",
            "model=resnet20",
            "recipe=ends_float",
        )
    )
    assert (spec.w_bits, spec.a_bits) == (w_bits, a_bits)
    assert spec.names["model"] == "resnet20" and spec.names["recipe"] == "ends_float"
    assert spec.recipe.rules[-1].weight.bits == w_bits  # pyright: ignore
    assert spec.recipe.rules[-1].output.bits == a_bits  # pyright: ignore


def test_a_finished_run_is_found_again_and_repeated_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["+experiment=pact_w4a4", *TINY, "model.width=4"]
    first = train(composed(*words))
    finished = (first / "result.json").read_bytes()
    assert train(composed(*words)) == first
    assert "is finished" in capsys.readouterr().out
    assert (first / "result.json").read_bytes() == finished
    second = train(composed(*words, "run.repeat=true"))
    assert second != first and (first / "result.json").read_bytes() == finished
    assert read(second).accuracy == read(first).accuracy
