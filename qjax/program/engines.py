"""Runtimes of others as engines: an exported file, run at that runtime's own speed.

For this their fastest kernels are taken, LiteRT's with XNNPACK, onnxruntime's with nodes joined and
reordered. LiteRT's fast kernels round otherwise than its reference ones, which the file's program
equals: the classes they choose are compared, not their codes.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from qjax.program.extras import require
from qjax.program.onnx.session import THREADS, session

type Images = UInt8[np.ndarray, "n h w c"]
type Classify = Callable[[Images], Any]
"""Images of one batch, always of one size -> the class of each."""


class Engine(NamedTuple):
    """A runtime.

    Attributes:
        form: the format of the files it runs.
        start: (file, images a call, threads) -> what classifies so many images.
    """

    form: str
    start: Callable[[Path, int, int], Classify]


def litert(path: Path, batch: int, threads: int = THREADS) -> Classify:
    """LiteRT's default kernels.

    Raises:
        ImportError: ai-edge-litert is not installed.
    """
    module = require("ai_edge_litert.interpreter", "ai-edge-litert")
    interpreter: Any = module.Interpreter(model_path=str(path), num_threads=threads)
    (given,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(given["index"], [batch, *given["shape"][1:]])
    interpreter.allocate_tensors()
    number = interpreter.get_output_details()[1]["index"]

    def classify(images: Images) -> Int[np.ndarray, " n"]:
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(number)

    return classify


def onnxruntime(path: Path, batch: int, threads: int = THREADS) -> Classify:
    """onnxruntime on the CPU, nodes joined and reordered.

    Raises:
        ImportError: onnxruntime is not installed.
    """
    del batch
    started = session(path.read_bytes(), optimized=True, threads=threads)
    (given,) = started.get_inputs()
    name = started.get_outputs()[1].name
    return lambda images: started.run([name], {given.name: images})[0]


ENGINES: Mapping[str, Engine] = MappingProxyType(
    {"litert": Engine("tflite", litert), "onnxruntime": Engine("onnx", onnxruntime)}
)
"""By name."""


class Timed(NamedTuple):
    """Classes of all images, and how fast they came, without the first call's preparation."""

    classes: np.ndarray
    images_per_second: float


def classify_all(classify: Classify, batches: Iterable[Images], size: int) -> Timed:
    """Classify images in batches of one size; the last is filled up."""
    classes, seconds, count = [], 0.0, 0
    for place, images in enumerate(batches):
        missing = size - len(images)
        filled = np.concatenate([images, np.repeat(images[-1:], missing, 0)]) if missing else images
        if place == 0:
            np.asarray(classify(filled))
        started = time.perf_counter()
        # What JAX returns may still be computed.
        found = np.asarray(classify(filled))
        seconds += time.perf_counter() - started
        count += size
        classes.append(found[: len(images)])
    return Timed(np.concatenate(classes), count / seconds)
