"""Quantizes the trained float network of a run, without training it further.

    python -m qjax.ptq folder=runs/float/... w_bits=4 a_bits=4
    python -m qjax.ptq folder=runs/float/... act=fqn images=1024 recipe=all run.policy=thresholds
    python -m qjax.ptq folder=runs/float/... target=tflite    # of a run with pixels=centred

`images` training images (64 by default) give the quantizers their ranges. The other words are
those of `python -m qjax.train`; weights and activations are `minmax` unless said. Data, model and
seed are the run's. Writes a record under `runs/ptq`, as a training run does, with the accuracies of
all three forms.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from flax import nnx
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from jax import numpy as jnp
from omegaconf import DictConfig, OmegaConf

from qjax.evaluate import stored_config
from qjax.launchers.errors import plain_errors
from qjax.record import Record, config_hash
from qjax.results.summary import summary
from qjax.surgery import fold_batch_norm, quantize
from qjax.target import check_words
from qjax.train import CONF, build, default_folder, plain
from qjax.training import checkpoint
from qjax.training.devices import ONE
from qjax.training.finish import evaluate, result
from qjax.training.run import CHECKPOINTS, trained_model
from qjax.training.spec import SAMPLE, RunSpec
from qjax.training.state import split

_OWN = ("folder=", "images=")

DEFAULTS = {"weight": "minmax", "act": "minmax", "procedure": "ptq"}
TAKEN = ("data", "pixels", "model", "seed", "epochs", "batch_size")
"""Parts of the float run's configuration that describe the network, not its quantization."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    if not arguments or set(arguments) & {"-h", "--help"}:
        sys.stdout.write(__doc__ or "")
        return 0 if arguments else 2
    with plain_errors():
        own = dict(word.split("=", 1) for word in arguments if word.startswith(_OWN))
        if "folder" not in own:
            raise ValueError("folder must be given: folder=FOLDER of a float run")
        words = [word for word in arguments if not word.startswith(_OWN)]
        folder = quantized_run(Path(own["folder"]), _images(own.get("images", str(SAMPLE))), words)
        print(summary(folder))
        print(f"record: {folder}")
    return 0


def quantized_run(source: Path, images: int, words: Sequence[str]) -> Path:
    """Quantizes the network of a float run and records the outcome.

    Args:
        source: folder of the float run, with its checkpoint.
        images: of the train split, for the ranges.
        words: overrides of the configuration, as on the command line.

    Returns:
        The record's folder; one that is finished is left as it is.

    Raises:
        ValueError: the run's network is quantized, was trained on other pixels than the target
            takes, or cannot run on it; or a field is out of range.
        FileNotFoundError: the folder holds no run, or no checkpoint.
    """
    begin = time.perf_counter()
    stored = stored_config(source, [])
    floating = build(stored)
    if floating.phases[-1].quantized:
        raise ValueError(
            f"folder: {source} holds a network that was trained quantized; name a float run "
            "(+experiment=float)"
        )
    config = configured(stored, images, words)
    check_words(words, config.get("target", {}).get("name"))
    spec = build(config)
    _check_pixels(source, floating, spec)
    folder = Path(config.run.folder or default_folder(config, spec))
    if (folder / "result.json").exists():
        print(f"{folder} is finished")
        return folder
    network, accuracy = trained_model(floating, source)
    model = calibrated(spec, network, images)
    if spec.target is not None:
        spec.target.check(model, spec.pixels, spec.data.shape)
    record = Record.create(folder, spec.config)
    _keep(folder, model, accuracy)
    outcome = evaluate(spec, model, accuracy)
    record.write_layers(outcome.layers)
    record.finish(result(spec, model, outcome, time.perf_counter() - begin, ONE))
    return folder


def configured(stored: DictConfig, images: int, words: Sequence[str]) -> DictConfig:
    """The configuration of the quantized network: the float run's, under the words' quantizers.

    Raises:
        ValueError: a word that the configuration does not have.
    """
    given = {word.split("=", 1)[0].lstrip("+~") for word in words}
    usual = [f"{group}={name}" for group, name in DEFAULTS.items() if group not in given]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", [*usual, *words], return_hydra_config=True)
    except ConfigCompositionException as error:
        raise ValueError(f"{error}; words are those of python -m qjax.train") from error
    HydraConfig.instance().set_config(config)
    OmegaConf.set_struct(config, False)
    if "method" not in given:
        config.method = f"ptq_{config.hydra.runtime.choices.act}"
    if "experiment" not in given:
        config.experiment = "ptq"
    del config["hydra"]
    for name in TAKEN:
        config[name] = stored[name]
    config.ptq = {"source": config_hash(plain(stored)), "images": images}
    return config


def _check_pixels(source: Path, floating: RunSpec, spec: RunSpec) -> None:
    """Raise where the quantized network would see the bytes scaled otherwise than in training."""
    if floating.pixels == spec.pixels:
        return
    named = spec.target.name if spec.target is not None else "none"
    scaling = getattr(spec.target and spec.target.pixels, "__name__", None)
    remedy = (
        f"train the float run with pixels={scaling}" if scaling else "name the target of that run"
    )
    raise ValueError(
        f"folder: {source} was trained on pixels with mean {floating.pixels.mean} and std "
        f"{floating.pixels.std}, but target={named} has mean {spec.pixels.mean} and std "
        f"{spec.pixels.std}; {remedy}"
    )


def calibrated(spec: RunSpec, network: nnx.Module, images: int) -> nnx.Module:
    """The float network with the specification's quantizers, their ranges from training images."""
    if spec.norm is not None:
        network = fold_batch_norm(network, spec.norm)
    sample = spec.pixels.normalise(jnp.asarray(spec.data.sample(images)[0]))
    model = quantize(network, spec.recipe, sample, spec.seed)
    model.eval()
    return model


def _keep(folder: Path, model: nnx.Module, float_accuracy: float | None) -> None:
    """A checkpoint, from which `qjax.evaluate` and `qjax.export` read the network."""
    _, trainable, rest = split(model)
    state = {"trainable": trainable, "rest": rest}
    metadata = {"phase": 1, "steps": 0, "float_accuracy": float_accuracy}
    checkpoint.save(folder / CHECKPOINTS, 0, state, metadata)


def _images(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"images must be a whole number of at least 1, got {text}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
