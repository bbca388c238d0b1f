"""TensorBoard's HParams tab over a sweep: for each run its hyper-parameters and its result."""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from werkzeug.test import Client

from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.pact import Pact
from qjax.recipe import Recipe, Rule
from qjax.record import RunRecord
from qjax.training.journal import RESULTS
from qjax.training.optimizers import Sgd
from qjax.training.phases import Phase
from qjax.training.programs import Programs
from qjax.training.run import Run
from tests.training.small import spec


def carried_out(folder: Path, bits: int, rate: float, programs: Programs) -> RunRecord:
    """A run of the tiny network that writes events."""
    ends = AffineActivation(8)
    quantized = Rule(weight=AffineWeight(bits), output=Pact(bits))
    recipe = Recipe((Rule("first", input=ends), Rule("last", input=ends), quantized))
    config: dict[str, Any] = {
        "seed": 0,
        "w_bits": bits,
        "optim": {"_target_": "sgd", "learning_rate": rate, "schedule": {"warmup_epochs": 0}},
        "act": {"bits": bits, "alpha_init": 6.0, "estimator": {"decay": 0.9}},
        "procedure": {"float_epochs": 2, "phases": [{"epochs": 2}]},
        "average_decay": None,
    }
    run = spec(Phase("quantized", 1, Sgd(rate)), recipe=recipe, config=config)
    settings = dataclasses.replace(run.settings, tensorboard=True)
    run = dataclasses.replace(run, w_bits=bits, a_bits=bits, settings=settings)
    return Run(run, folder, programs)()


def asked(folder: Path, route: str, request: dict[str, Any]) -> dict[str, Any]:
    """What TensorBoard's server answers the tab in the browser."""
    with warnings.catch_warnings():
        # Of a library that TensorBoard brings along.
        warnings.filterwarnings("ignore", "html5lib", DeprecationWarning)
        from tensorboard.plugins.hparams.hparams_plugin import HParamsPlugin
    found = EventMultiplexer().AddRunsFromDirectory(str(folder))
    found.Reload()
    context = TBContext(
        data_provider=MultiplexerDataProvider(found, str(folder)), logdir=str(folder)
    )
    routes: dict[str, Any] = HParamsPlugin(context).get_plugin_apps()
    answer = Client(routes[route]).post(json=request)
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text)


def test_the_tab_shows_what_differs_and_what_came_out(tmp_path: Path) -> None:
    programs, records = Programs(), {}
    for bits, rate in ((2, 0.1), (4, 0.05)):
        folder = tmp_path / f"w{bits}"
        records[bits] = carried_out(folder, bits, rate, programs)
    experiment = asked(tmp_path, "/experiment", {"experimentName": ""})
    assert [info["name"]["tag"] for info in experiment["metricInfos"]] == list(RESULTS)
    names = {info["name"] for info in experiment["hparamInfos"]}
    assert {"w_bits", "a_bits", "seed", "method", "data", "optim.learning_rate"} <= names
    nested = {"optim.schedule.warmup_epochs", "act.estimator.decay", "procedure.float_epochs"}
    assert nested <= names
    assert not {"optim.schedule", "optim", "average_decay", "procedure.phases"} & names
    request = {"startIndex": 0, "sliceSize": 10, "allowedStatuses": ["STATUS_SUCCESS"]}
    groups = asked(tmp_path, "/session_groups", request)["sessionGroups"]
    assert len(groups) == 2
    for group in groups:
        row, (session,) = group["hparams"], group["sessions"]
        record = records[int(row["w_bits"])]
        assert row["optim.learning_rate"] == {2: 0.1, 4: 0.05}[int(row["w_bits"])]
        assert row["method"] == "pact" and row["a_bits"] == row["w_bits"]
        assert session["name"] == f"w{int(row['w_bits'])}/events"
        values = {value["name"]["tag"]: value["value"] for value in session["metricValues"]}
        for tag in ("accuracy/simulated", "accuracy/integer"):
            assert values[tag] == pytest.approx(record.accuracy[tag.split("/")[1]])
