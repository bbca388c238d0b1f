"""`python -m qjax.evaluate folder=FOLDER`: the three accuracies of a run again, from its
checkpoint.

Other keys override the run's configuration, e.g. `run.policy=thresholds` or `data.test_limit=100`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from qjax.launchers.errors import plain_errors
from qjax.record import read
from qjax.target import check_words
from qjax.train import build
from qjax.training.finish import Outcome, evaluate, evaluate_float
from qjax.training.run import trained_model


def stored_config(folder: Path, overrides: list[str]) -> DictConfig:
    """The configuration of a run folder with `key=value` overrides of keys that it has.

    Raises:
        FileNotFoundError: the folder holds no configuration.
        ValueError: an override of a key that the configuration lacks.
    """
    path = folder / "config.yaml"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; name a folder that a run printed")
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    OmegaConf.set_struct(config, True)
    try:
        merged = OmegaConf.merge(config, OmegaConf.from_dotlist(overrides))
    except Exception as error:
        raise ValueError(f"override {overrides}: {error}; keys are those of {path}") from error
    assert isinstance(merged, DictConfig)
    return merged


def reevaluate(folder: Path, overrides: list[str]) -> Outcome:
    """Accuracies and agreement of the trained network of a run folder, recomputed."""
    spec = build(stored_config(folder, overrides))
    model, float_accuracy = trained_model(spec, folder)
    if spec.phases[-1].quantized:
        return evaluate(spec, model, float_accuracy)
    assert float_accuracy is not None
    return evaluate_float(spec, model, float_accuracy)


def main(arguments: list[str]) -> None:
    """Entry point."""
    with plain_errors():
        named = [text for text in arguments if text.startswith("folder=")]
        if len(named) != 1 or any("=" not in text for text in arguments):
            raise ValueError(
                f"usage: python -m qjax.evaluate folder=FOLDER [key=value ...], got {arguments}"
            )
        folder = Path(named[0].removeprefix("folder="))
        words = [text for text in arguments if text not in named]
        check_words(words, stored_config(folder, []).get("target", {}).get("name"))
        outcome = reevaluate(folder, words)
        recorded = (folder / "result.json").exists()
        print(
            json.dumps(
                {
                    "accuracy": outcome.accuracy,
                    "recorded": dict(read(folder).accuracy) if recorded else None,
                    "agreement": outcome.agreement,
                    "integer": outcome.integer,
                },
                indent=2,
            )
        )


if __name__ == "__main__":
    main(sys.argv[1:])
