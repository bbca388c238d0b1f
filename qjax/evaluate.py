"""`python -m qjax.evaluate folder=FOLDER`: the three accuracies of a run again, from its
checkpoint.

    python -m qjax.evaluate folder=FOLDER run.policy=thresholds
    python -m qjax.evaluate folder=FOLDER engine=onnxruntime

Keys of the run's configuration override it, e.g. `data.test_limit=100`.

`engine=litert` or `engine=onnxruntime` exports the network, compares the file with that runtime on
some test images operator by operator, and evaluates the whole test set at the runtime's own speed:
for large jobs, on `threads=N` threads (2). It prints its accuracy beside the network's, and images
a second of both. `calibrate=true`, `timeout` and `memory` as in `python -m qjax.export`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from qjax.launchers.errors import plain_errors
from qjax.program.arguments import flag, whole
from qjax.record import read
from qjax.target import check_words
from qjax.train import build
from qjax.training.finish import Outcome, evaluate, evaluate_float
from qjax.training.run import trained_model

_ENGINES = ("calibrate", "threads", "timeout", "memory")
"""What is said to an engine alone."""
_OWN = ("folder", "engine", *_ENGINES)
_USAGE = "usage: python -m qjax.evaluate folder=FOLDER [engine=NAME [threads=N]] [key=value ...]"


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
        if any("=" not in text for text in arguments):
            raise ValueError(f"arguments must be key=value, got {arguments}; {_USAGE}")
        options = dict(text.split("=", 1) for text in arguments)
        own = {key: options.pop(key) for key in _OWN if key in options}
        if "folder" not in own or len(arguments) != len(own) + len(options):
            raise ValueError(f"folder must be given, and every key once, got {arguments}; {_USAGE}")
        folder = Path(own["folder"])
        overrides = [f"{key}={value}" for key, value in options.items()]
        check_words(overrides, stored_config(folder, []).get("target", {}).get("name"))
        if "engine" in own:
            found = _by_engine(folder, overrides, own)
        elif idle := [key for key in _ENGINES if key in own]:
            raise ValueError(f"{idle[0]} is said to an engine; give engine=NAME too; {_USAGE}")
        else:
            outcome = reevaluate(folder, overrides)
            found = {
                "accuracy": outcome.accuracy,
                "recorded": _recorded(folder),
                "agreement": outcome.agreement,
                "integer": outcome.integer,
            }
        print(json.dumps(found, indent=2))


def _by_engine(folder: Path, overrides: list[str], own: dict[str, str]) -> dict[str, object]:
    # Imported here: they need the packages of the export extra, and this module.
    from qjax.export import Trained
    from qjax.program.apart import limits_of
    from qjax.program.engines import THREADS

    fill, threads = flag(own, "calibrate", False), whole(own, "threads", THREADS, 1)
    limits = limits_of(own)
    try:
        return Trained(folder, overrides).engine(own["engine"], fill, threads, limits)
    except ImportError as error:
        raise ValueError(str(error)) from error


def _recorded(folder: Path) -> dict[str, object] | None:
    return dict(read(folder).accuracy) if (folder / "result.json").exists() else None


if __name__ == "__main__":
    main(sys.argv[1:])
