"""Predicts an integer network's accuracy on CPUs without VNNI, where pairs of products saturate.

    python -m qjax.saturation file=NET.onnx data=cifar10 samples=1000
    python -m qjax.saturation folder=FOLDER        what its ONNX export would score there

On such CPUs onnxruntime adds two products of an unsigned and a signed byte in 16 bits. Weights that
stay inside +-64 never overflow them; weights of full range may, silently. Prints one line of JSON:
`accuracy` where sums are exact, `accuracy_saturating`, `class_agreement`, and `changed_codes`, the
share of each layer's codes that saturation changes when the layer is fed exact codes. Where it
costs accuracy, train or quantize the weights with 7 bits. `samples` is 1000 if not given.

A .tflite file is taken as if its operators ran with these products; LiteRT itself widens them.
"""

import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from qjax.export import Trained
from qjax.inspect import read
from qjax.program.arguments import key_values, whole
from qjax.program.lowering.container import ONNX
from qjax.program.lowering.lower import lower, observe
from qjax.program.prediction import predict
from qjax.program.program import Program

BATCH = 50
_CALIBRATION, _SAMPLES = 256, 1000

type Batches = Iterator[tuple[np.ndarray, np.ndarray]]


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns 0, or 2 for a wrong argument or a file that cannot be read."""
    if not arguments or set(arguments) & {"-h", "--help"}:
        sys.stdout.write(__doc__ or "")
        return 0 if arguments else 2
    try:
        options = key_values(arguments, ("file", "folder", "data", "samples"))
        samples = whole(options, "samples", _SAMPLES, least=1)
        if "file" in options and "data" in options and "folder" not in options:
            images, labels = test_set(options["data"], samples, at_most="samples" not in options)
            program = read(Path(options["file"]))
            batches = batches_of(program, images, labels)
        elif "folder" in options and not {"file", "data"} & set(options):
            trained = Trained(Path(options["folder"]))
            calibration, _ = trained.spec.data.sample(_CALIBRATION)
            program = lower(trained.program, ONNX, observe(trained.program, calibration)).program
            batches = batches_of(program, *trained.test_images(samples))
        else:
            raise ValueError("give file=FILE with data=SET, or folder=FOLDER")
        found = predict(program, batches)
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    print(json.dumps(found.summary()))
    return 0


def test_set(name: str, count: int, at_most: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The first test images of a set and their labels.

    Args:
        name: of the set.
        count: how many images.
        at_most: take fewer where there are fewer.

    Raises:
        ValueError: no such set, or fewer images.
    """
    try:
        data = importlib.import_module(f"qjax.data.{name}").load()
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(
            f"data must name a set of `python -m qjax.data list`, got {name}"
        ) from error
    if count > len(data.test_images) and not at_most:
        raise ValueError(f"samples must be at most {len(data.test_images)}, got {count}")
    return data.test_images[:count], data.test_labels[:count]


def batches_of(program: Program, images: np.ndarray, labels: np.ndarray) -> Batches:
    """Images as the program's one input takes them, in batches of one size.

    Raises:
        ValueError: images of another shape than the input's, or another input than images.
    """
    tensor = program[program.inputs[0]]
    if len(program.inputs) != 1 or tensor.shape[1:] != images.shape[1:]:
        raise ValueError(
            f"the program must take images of shape {images.shape[1:]}, got {tensor} of shape "
            f"{tensor.shape}"
        )
    size = next(n for n in range(min(BATCH, len(labels)), 0, -1) if len(labels) % n == 0)
    for start in range(0, len(labels), size):
        batch = images[start : start + size]
        if tensor.dtype == "int8":
            batch = (batch.astype(np.int16) - 128).astype(np.int8)
        elif tensor.dtype == "float32":
            batch = batch.astype(np.float32) / 255
        yield batch, labels[start : start + size]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
