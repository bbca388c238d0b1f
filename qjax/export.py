"""Writes the integer network of a run in other formats.

    python -m qjax.export folder=FOLDER format=program,stablehlo
    python -m qjax.export folder=FOLDER format=program out=DIR

| format | file | what it holds |
|---|---|---|
| `program` | `network.qjax` | the integer program: every operator and policy, weights packed |
| `stablehlo` | `network.stablehlo` | the program as one function of one image, by `jax.export` |

What a format cannot express is an error that says so and names the format that can.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import jax
import jax.numpy as jnp
from flax import nnx

from qjax.core.codes import Codes
from qjax.evaluate import stored_config
from qjax.integerize import LOGIT_BITS, IntegerNetwork, integerize
from qjax.program.arguments import key_values
from qjax.program.from_network import Recorder
from qjax.program.logits import common_grid
from qjax.program.program import Program
from qjax.program.save import save
from qjax.program.stablehlo import write_stablehlo
from qjax.train import build
from qjax.training.run import trained_model
from qjax.tree import get, swap

_KEYS = ("folder", "format", "out")

FORMATS: Mapping[str, tuple[str, Callable[[Program, Path], object]]] = MappingProxyType(
    {
        "program": ("network.qjax", save),
        "stablehlo": ("network.stablehlo", write_stablehlo),
    }
)
"""By name: the file, and what writes it."""


class _Recorded(nnx.Module):
    """A layer's place, where a function is shown the layer and its inputs."""

    def __init__(self, call: Callable[..., Codes]):
        self.call = call

    def __call__(self, *inputs: Codes) -> Codes:
        """What the layer returns."""
        return self.call(*inputs)


def program_of(network: IntegerNetwork, shape: tuple[int, ...]) -> Program:
    """The integer program of a network: uint8 pixels to `logits` and `class`.

    Args:
        network: what `integerize` returned; it is not changed.
        shape: of one image, (h, w, c).

    Raises:
        ValueError: a layer that stays float, or that no operator computes.
    """
    if network.float_layers:
        raise ValueError(
            f"layer {network.float_layers[0]!r} stays float, so there is no integer program; "
            "choose a recipe whose ends are quantized, such as ends_8bit"
        )
    programs: list[Program] = []

    def trace(pixels: jax.Array) -> jax.Array:
        copy = nnx.clone(network)
        entry = copy.pixels.codes(pixels)
        recorder = Recorder(pixels, entry)
        for path in copy.paths:
            twin = get(network.model, path)
            call = _call(recorder, path, twin)
            swap(copy.model, path, _Recorded(call))
        y = copy.model(entry)  # pyright: ignore[reportCallIssue]
        recorder.logits(y, *common_grid(y, LOGIT_BITS))
        programs.append(recorder.program())
        return y.terms[0].ints

    jax.eval_shape(trace, jax.ShapeDtypeStruct((1, *shape), jnp.uint8))
    return programs[0]


def _call(recorder: Recorder, path: str, twin: object) -> Callable[..., Codes]:
    assert isinstance(twin, nnx.Module)
    return lambda *inputs: recorder.layer(path, twin, inputs)


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns 0, or 2 for a wrong argument or what a format cannot express."""
    if not arguments or set(arguments) & {"-h", "--help"}:
        sys.stdout.write(__doc__ or "")
        return 0 if arguments else 2
    try:
        options = key_values(arguments, _KEYS)
        if "folder" not in options or "format" not in options:
            raise ValueError("folder=FOLDER and format=FORMAT[,FORMAT] must be given")
        formats = options["format"].split(",")
        unknown = [name for name in formats if name not in FORMATS]
        if unknown:
            raise ValueError(f"format must be among {', '.join(FORMATS)}, got {unknown[0]!r}")
        folder = Path(options["folder"])
        program = trained_program(folder)
        out = Path(options.get("out", folder))
        out.mkdir(parents=True, exist_ok=True)
        for name in formats:
            file, write = FORMATS[name]
            write(program, out / file)
            print(f"{out / file}: {(out / file).stat().st_size:,} bytes")
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def trained_program(folder: Path) -> Program:
    """The program of a run folder's trained network.

    Raises:
        FileNotFoundError, ValueError: the folder holds no trained network, or none of integers.
    """
    spec = build(stored_config(folder, []))
    model, _ = trained_model(spec, folder)
    network = integerize(model, spec.pixels, spec.data.shape, spec.settings.policy)
    return program_of(network, spec.data.shape)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
