"""The ImageNet rows: the papers' schedules, and some steps on a folder of small images."""

from pathlib import Path

import numpy as np
import pytest

from qjax.record import read
from qjax.train import build, train
from qjax.training.optimizers import Adam, Sgd
from tests.configs.compose import IMAGENET, composed
from tests.data.photos import made_up

TINY = [
    "batch_size=4",
    "epochs=1",
    "data.crops.size=32",
    "data.crops.resize=36",
    "run.progress=false",
    "run.eval_batch=8",
]
WIDTH = {
    "alexnet": [
        *("model.image=44", "model.widths=[8,12,16,16,12,24]"),
        *("data.crops.size=44", "data.crops.resize=48"),
    ],
    "mobilenet_v1": ["model.width=0.125", "model.stack=[[64,1],[128,2],[128,1]]"],
    "mobilenet_v2": ["model.width=0.125", "model.head=32"],
}
"""Small networks of each kind; the others are an eighth as wide."""

QUICK = {"pact_w4a4_alexnet"}
STEPS_OF_IMAGENET = 1_281_167


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen training images and six to test, of three classes."""
    return made_up(tmp_path_factory.mktemp("images"))


def tiny(name: str, folder: Path) -> list[str]:
    """An experiment cut to three steps an epoch."""
    kind = name.split("_", 2)[-1]
    words = [f"+experiment={name}", f"data.root={folder}", *TINY]
    words += WIDTH.get(kind, ["model.width=0.125"])
    if "minmax" in name:
        words += ["procedure.float_epochs=1", "procedure.frozen_epochs=1"]
    return words


@pytest.mark.parametrize("name", IMAGENET)
def test_a_row_composes_with_the_papers_numbers(name: str, folder: Path) -> None:
    config = composed(f"+experiment={name}", f"data.root={folder}")
    spec = build(config)
    assert spec.names["data"] == "imagenet" and spec.data.shape == (224, 224, 3)
    floats = "ends_float_errors" if "error" in spec.config else "ends_float"
    assert spec.recipe.name == ("deployable" if "minmax" in name else floats)
    quantized = [phase for phase in spec.phases if phase.quantized]
    optimizer = quantized[0].scaled_optimizer()
    if "minmax" in name:
        assert isinstance(optimizer, Sgd) and optimizer.learning_rate == pytest.approx(1e-5)
        assert quantized[-1].freeze == ("ranges", "batch_statistics")
        assert spec.norm is not None and spec.target is not None
        return
    (phase,) = spec.phases
    steps = STEPS_OF_IMAGENET // config.batch_size
    assert isinstance(optimizer, Adam if "alexnet" in name else Sgd)
    rate = optimizer.schedule.build(phase.epochs * steps, steps_per_epoch=steps)
    found = [
        optimizer.learning_rate * float(np.asarray(rate(epoch * steps)))
        for epoch in range(phase.epochs)
    ]
    changes = [epoch for epoch in range(1, phase.epochs) if found[epoch] != found[epoch - 1]]
    batch, epochs, rates, at = {
        "dorefa_w1a2g6_alexnet": (256, 90, [2e-4, 4e-5, 8e-6], [60, 75]),
        "pact_w4a4_alexnet": (128, 100, [1e-4, 2e-5, 4e-6], [56, 64]),
        "dorefa_w4a4_alexnet": (128, 100, [1e-4, 2e-5, 4e-6], [56, 64]),
    }.get(name, (256, 110, [0.1, 1e-2, 1e-3, 1e-4, 1e-5], [30, 60, 85, 95]))
    assert (config.batch_size, phase.epochs, changes) == (batch, epochs, at)
    np.testing.assert_allclose([found[0], *(found[epoch] for epoch in changes)], rates, rtol=1e-5)
    assert optimizer.weight_decay == (5e-6 if "alexnet" in name else 1e-4)
    if "pact" in name:
        assert spec.recipe.rules[-1].output.decay == optimizer.weight_decay  # pyright: ignore


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in IMAGENET],
)
def test_a_row_runs_on_a_folder_of_images(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record = read(train(composed(*tiny(name, folder))))
    assert record.data == "imagenet" and record.data_source["sha256"]
    assert record.agreement["predictions"] is not None
    if "minmax" in name:
        assert record.integer["float_free"] and not record.integer["float_layers"]
        assert record.target == "tflite"
    else:
        assert len(record.integer["float_layers"]) >= 2
