"""Every file in conf/data builds its loader call: no key too many, none forgotten."""

import importlib
import inspect
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf

from qjax.data.dataset import Dataset

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "data").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_keys_and_values_are_the_loaders_own(path: Path):
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    module, function = config.pop("_target_").rsplit(".", 1)
    assert module == f"qjax.data.{path.stem}"
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    values = hydra.utils.instantiate(config, _convert_="all")
    assert {name: parameter.default for name, parameter in parameters.items()} == values


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_what_needs_no_fetching_loads(name: str):
    (path,) = (path for path in CONFIGS if path.stem == name)
    dataset = hydra.utils.instantiate(OmegaConf.load(path), train_limit=8)
    assert isinstance(dataset, Dataset)
    assert (dataset.name, len(dataset.train_labels)) == (name, 8)
