"""The formats that a network's program is exported to, and what is found out about each file."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from qjax.program.apart import Limits
from qjax.program.comparison import (
    Comparison,
    RuntimeUnfit,
    compare_onnx,
    compare_tflite,
    image_inputs,
)
from qjax.program.lowering.container import ONNX, TFLITE, Container
from qjax.program.lowering.lower import Lowered, lower, observe
from qjax.program.lowering.report import deviation
from qjax.program.onnx.write import write_onnx
from qjax.program.program import Program
from qjax.program.run import run
from qjax.program.save import save
from qjax.program.stablehlo import read_stablehlo, write_stablehlo
from qjax.program.tflite_write import write_tflite

type Pixels = UInt8[np.ndarray, "n h w c"]


@dataclasses.dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        file: the name that files get.
        write: a program in its form, to a path.
        container: what the form is; None where any program may be written as it is.
        runtime: its runtime's name, where operators are compared with it.
        compare: how.
    """

    file: str
    write: Callable[[Program, Path], object]
    container: Container | None = None
    runtime: str = ""
    compare: Callable[..., Comparison] | None = None


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "program": Format("network.qjax", save),
        "stablehlo": Format("network.stablehlo", write_stablehlo),
        "tflite": Format(
            "network.tflite", write_tflite, TFLITE, "LiteRT (BUILTIN_REF)", compare_tflite
        ),
        "onnx": Format("network.onnx", write_onnx, ONNX, "onnxruntime", compare_onnx),
    }
)
"""By name."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """One file.

    Attributes:
        path: of it.
        program: what it holds.
        lowered: how that came from the network's program; None where it is that itself.
    """

    path: Path
    program: Program
    lowered: Lowered | None = None


def export(
    program: Program, name: str, path: Path, calibration: Pixels, fill: bool = False
) -> Exported:
    """Write a network's program in a format.

    Args:
        program: of the network.
        name: of the format, one of `FORMATS`.
        path: of the file.
        calibration: training images; for grids that the format needs and the network lacks.
        fill: as `lower`.

    Raises:
        NotExpressible: what the format cannot hold, and the formats that can.
        ImportError: the format's package is not installed.
    """
    form = FORMATS[name]
    if form.container is None:
        form.write(program, path)
        return Exported(path, program)
    lowered = lower(program, form.container, observe(program, calibration), fill)
    form.write(lowered.program, path)
    return Exported(path, lowered.program, lowered)


def compared(
    exported: Exported, name: str, pixels: Pixels, limits: Limits | None = None
) -> Comparison:
    """Every operator of an exported file against the format's runtime, on some images.

    Args:
        exported, name: the file and its format.
        pixels: the images, (n, h, w, c).
        limits: of the runtime's process; None for the usual ones.

    Raises:
        RuntimeUnfit: the runtime is no reference on this machine.
        ImportError: it is not installed.
        ValueError: the format has no such comparison.
    """
    compare = FORMATS[name].compare
    if compare is None:
        raise ValueError(f"format {name} has no runtime of its own to compare operators with")
    return compare(exported.path, len(pixels), image_inputs(pixels), limits or Limits())


def stablehlo_differs(exported: Exported, pixels: Pixels) -> int:
    """How many outputs of a StableHLO file differ from the program's, image by image."""
    function = read_stablehlo(exported.path)
    differing = 0
    for place in range(len(pixels)):
        image = pixels[place : place + 1]
        expected = run(exported.program, image)
        found = function.call(image)
        pairs = zip(found, (expected[name] for name in exported.program.outputs), strict=True)
        differing += sum(int(np.sum(np.asarray(a) != np.asarray(b))) for a, b in pairs)
    return differing


class Checked(NamedTuple):
    """What was found out about a file.

    Attributes:
        lines: for a reader, the first with the file's name and bytes.
        mismatched: codes that its runtime computes otherwise than the program.
        unsupported: operators that the reader of the format takes for none of its own, so that they
            were not compared.
    """

    lines: list[str]
    mismatched: int
    unsupported: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the file is not what the program is."""
        return bool(self.mismatched or self.unsupported)


def check(
    exported: Exported,
    name: str,
    network: Program,
    images: tuple[Pixels, np.ndarray],
    compare: int,
    limits: Limits | None = None,
) -> Checked:
    """Hold a file against the network and against its runtime.

    Args:
        exported, name: the file and its format.
        network: the program that it was made of.
        images: test images and their labels.
        compare: how many of them the runtime is compared on; 0 to leave that out.
        limits: as `compared`.
    """
    pixels, labels = images
    lines, mismatched = [f"{exported.path}: {exported.path.stat().st_size:,} bytes"], 0
    unsupported: tuple[str, ...] = ()
    if exported.lowered is not None:
        lines += _held_against(network, exported.lowered, pixels, labels)
    if compare and name == "stablehlo":
        mismatched = stablehlo_differs(exported, pixels[:compare])
        lines.append(f"jax.export: {mismatched} outputs differ on {compare} images")
    if compare and FORMATS[name].compare is not None:
        runtime = FORMATS[name].runtime
        try:
            result = compared(exported, name, pixels[:compare], limits)
        except (RuntimeUnfit, ImportError) as error:
            lines.append(f"{runtime}: not compared: {error}")
        else:
            mismatched = sum(row.mismatched for row in result.results)
            codes = sum(row.compared for row in result.results)
            lines.append(
                f"{runtime}: {mismatched} of {codes:,} codes differ, operator by operator on "
                f"{compare} images"
            )
            unsupported = result.unsupported
            lines += [f"{runtime}: not compared: {problem}" for problem in unsupported]
    return Checked(lines, mismatched, unsupported)


def _held_against(
    network: Program, lowered: Lowered, pixels: Pixels, labels: np.ndarray
) -> list[str]:
    found = deviation(network, lowered, pixels)
    right = [100 * np.mean(classes == labels) for classes in (found.network, found.program)]
    lines = [
        str(found),
        f"accuracy on {len(labels)} test images: {right[1]:.2f} %, the network's {right[0]:.2f} %",
    ]
    if lowered.changed:
        lines.append(
            f"{sum(lowered.changed.values())} channels of {', '.join(lowered.changed)} have "
            "weights rounded further, since their bias would leave int32"
        )
    return lines
