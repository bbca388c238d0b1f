"""Says which kernels an integer network takes on this machine, layer by layer.

    python -m qjax.audit folder=FOLDER                 the network of a run
    python -m qjax.audit file=NET.qjax batch=1         a program's file (.qjax, .tflite, .onnx)

XLA computes an int8 product in its fast library only for some shapes and in a plain int32 loop, up
to ten times slower than float32, for others. The compiled program is read, not a model of it:

| verdict | what the layer's products became |
|---|---|
| fast | library calls with int8 operands |
| elementwise | int32 multiply-adds without a product, as depthwise layers are made here |
| slow | a loop over widened operands |
| float | products of floating-point numbers: a layer that stays float |

Prints a row for each layer that multiplies, then one line of JSON with the number of each verdict.
The exit code is 1 where a layer is slow. `batch` is the number of images, 64 if not given.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from qjax.core import hlo
from qjax.floatfree import Function
from qjax.inspect import read
from qjax.integerize import IntegerNetwork
from qjax.layers.layer import FloatBoundary
from qjax.program import ops
from qjax.program.arguments import key_values, whole
from qjax.program.listing import aligned, shortened
from qjax.program.program import Program
from qjax.program.run import step
from qjax.program.tensor import DTYPES
from qjax.tree import swap

VERDICTS = ("fast", "elementwise", "slow", "float")


class Row(NamedTuple):
    """One layer.

    Attributes:
        name: its path in the model, or the tensor that it computes.
        kernel: what its products became, as `hlo.paths` says it.
    """

    name: str
    kernel: str

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        if "f32" in self.kernel or "f64" in self.kernel or "bf16" in self.kernel:
            return "float"
        if "loop" in self.kernel:
            return "slow"
        return "fast" if "library" in self.kernel else "elementwise"


def audit_program(program: Program, batch: int) -> list[Row]:
    """The layers of a program that multiply by weights, compiled for so many samples."""
    layers = [
        (place, operator)
        for place, operator in enumerate(program.operators)
        if isinstance(operator, ops.Conv2D | ops.TransposeConv2D | ops.Dense)
    ]

    def run(inputs: dict[str, Array]) -> list[Array]:
        values = dict(inputs)
        for place, operator in enumerate(program.operators):
            with jax.named_scope(_scope(place)):
                values[operator.output] = step(program, operator, values)
        return [values[name] for name in program.outputs]

    given = {}
    for name in program.inputs:
        tensor = program[name]
        sizes = tuple(batch if size is None else size for size in tensor.shape)
        given[name] = jax.ShapeDtypeStruct(sizes, DTYPES[tensor.dtype])
    names = {place: operator.output for place, operator in layers}
    return _rows(run, given, names)


def audit_network(network: IntegerNetwork, shape: tuple[int, ...], batch: int) -> list[Row]:
    """The layers of a converted network that multiply by weights.

    Args:
        network: what `integerize` returned; float layers are told as such.
        shape: of one image, (h, w, c).
        batch: images.
    """
    names = {
        place: path
        for place, (path, twin) in enumerate(network.twins().items())
        if _multiplies(twin)
    }

    def run(pixels: Array) -> Array:
        copy = nnx.clone(network)
        for place, (path, twin) in enumerate(network.twins().items()):
            swap(copy.model, path, Function(_scoped(_scope(place), twin)))  # pyright: ignore
        return copy(pixels)

    return _rows(run, jax.ShapeDtypeStruct((batch, *shape), jnp.uint8), names)


def _multiplies(twin: nnx.Module) -> bool:
    layer = twin.layer if isinstance(twin, FloatBoundary) else twin
    return hasattr(layer, "weights") or "weight" in getattr(layer, "slots", ())


def _scope(place: int) -> str:
    return f"layer{place}"


def _scoped(name: str, twin: nnx.Module) -> Callable:
    def call(*inputs: object) -> object:
        with jax.named_scope(name):
            return twin(*inputs)  # pyright: ignore[reportCallIssue]

    return call


def _rows(run: Callable, given: object, names: dict[int, str]) -> list[Row]:
    text = jax.jit(run).lower(given).compile().as_text() or ""
    found: dict[int, list[str]] = {place: [] for place in names}
    for product in hlo.products(text):
        places = [place for place in names if _scope(place) in product.layer.split("/")]
        for place in places:
            found[place].append(product.path)
    return [
        Row(name, ", ".join(dict.fromkeys(found[place])) or "elementwise")
        for place, name in names.items()
    ]


def report(rows: Sequence[Row]) -> list[str]:
    """The table and the line of JSON."""
    cells = [
        ("verdict", "kernel", "layer"),
        *((r.verdict, r.kernel, shortened(r.name)) for r in rows),
    ]
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in VERDICTS}
    return [*aligned(cells), json.dumps({"layers": len(rows)} | counts)]


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns 0, 1 where a layer is slow, 2 for a wrong argument or a file that
    cannot be read.
    """
    if not arguments or set(arguments) & {"-h", "--help"}:
        sys.stdout.write(__doc__ or "")
        return 0 if arguments else 2
    try:
        options = key_values(arguments, ("folder", "file", "batch"))
        batch = whole(options, "batch", 64, least=1)
        if ("folder" in options) == ("file" in options):
            raise ValueError("one of folder=FOLDER and file=FILE must be given")
        if "file" in options:
            rows = audit_program(read(Path(options["file"])), batch)
        else:
            rows = _audit_folder(Path(options["folder"]), batch)
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    print("\n".join(report(rows)))
    return int(any(row.verdict == "slow" for row in rows))


def _audit_folder(folder: Path, batch: int) -> list[Row]:
    # Imported here: a file is audited without Hydra's part of qjax.
    from qjax.evaluate import stored_config
    from qjax.integerize import integerize
    from qjax.train import build
    from qjax.training.run import trained_model

    spec = build(stored_config(folder, []))
    model, _ = trained_model(spec, folder)
    shape = tuple(int(size) for size in np.asarray(spec.data.shape))
    network = integerize(model, spec.pixels, shape, spec.settings.policy)
    return audit_network(network, shape, batch)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
