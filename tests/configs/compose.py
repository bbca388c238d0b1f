"""Compose configurations as the command line does, inside a test."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from qjax.train import CONF

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))

IMAGENET = [
    name
    for name in EXPERIMENTS
    if "override /data: imagefolder" in (CONF / "experiment" / f"{name}.yaml").read_text()
]
"""Those of ImageNet: they read a folder of images."""

TINY = [
    "data=synthetic",
    "data.height=8",
    "data.width=8",
    "data.channels=1",
    "data.train_size=96",
    "data.test_size=32",
    "batch_size=32",
    "epochs=1",
    "run.progress=false",
]
"""A run of three steps on synthetic images."""


def composed(*overrides: str) -> DictConfig:
    """The configuration that these command-line words give."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    return config


def uses_own_model(name: str) -> bool:
    """Whether an experiment chooses its own model, which a tiny image may not fit."""
    return "override /model" in (Path(CONF) / "experiment" / f"{name}.yaml").read_text()
