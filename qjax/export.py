"""Writes the integer network of a run in other formats.

    python -m qjax.export folder=FOLDER format=program,tflite,onnx,stablehlo
    python -m qjax.export folder=FOLDER format=tflite out=DIR compare=100
    python -m qjax.export folder=FOLDER format=onnx calibrate=true

| format | file | what it holds |
|---|---|---|
| `program` | `network.qjax` | the integer program: every operator and policy, weights packed |
| `tflite` | `network.tflite` | int8 operators with TFLite's arithmetic, `gemmlowp` |
| `onnx` | `network.onnx` | QLinear operators, uint8 activations, onnxruntime's `f32_even` |
| `stablehlo` | `network.stablehlo` | the program as one function of one image, by `jax.export` |

Files take uint8 pixels (n, h, w, c). A .tflite or ONNX file rounds as its runtime does, not as the
run's policy has it: how many codes, classes and right answers that changes on `images` test images
(200) is printed, and how many codes the runtime computes otherwise than the file's own program on
`compare` of them (20; 0 leaves it out), operator by operator, in a process of its own: `timeout`
seconds (300) for its start and for each batch, `memory` MiB (8192). Logits get 8 bits unless the
last layer has an `output` quantizer.

What a format cannot express is an error that says so and names the format that can; the other
formats are written all the same. In TFLite and
ONNX every tensor between operators has one 8-bit grid; where sums meet before they are rounded (a
residual addition), the recipe needs an `output` quantizer on the convolution, or `calibrate=true`
gives it one from training images: another network than the trained one.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qjax.core.codes import Codes
from qjax.evaluate import stored_config
from qjax.integerize import LOGIT_BITS, IntegerNetwork, integerize
from qjax.program.apart import Limits, limits_of
from qjax.program.arguments import flag, key_values, whole
from qjax.program.engines import ENGINES, THREADS, classify_all
from qjax.program.formats import FORMATS, check, compared, export
from qjax.program.from_network import Recorder
from qjax.program.logits import common_grid
from qjax.program.program import Program
from qjax.program.run import runner
from qjax.train import build
from qjax.training.run import CHECKPOINTS, trained_model
from qjax.training.spec import RunSpec
from qjax.tree import get, swap

_KEYS = ("folder", "format", "out", "images", "compare", "calibrate", "timeout", "memory")
_CALIBRATION = 256
"""Training images that say what a tensor reaches."""
_PARITY = 20
"""Test images that an engine is compared on, operator by operator."""
_TIMED = 2000
"""Test images that the network itself classifies beside an engine."""
_ALIKE = 0.98
"""Share of images of which an engine's fast kernels may be expected to choose the same class."""
_UNLIKE = (
    "the runtime's fast kernels, which round otherwise than the reference kernels of `parity`, "
    "chose another class for {:.1%} of {} images: its accuracy is not that of the integer network"
)


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
    """Runs the command; returns 0, 1 when a runtime's codes differ from the program's or could not
    be compared, or 2 for a wrong argument or what a format cannot express.
    """
    if not arguments or set(arguments) & {"-h", "--help"}:
        sys.stdout.write(__doc__ or "")
        return 0 if arguments else 2
    try:
        options = key_values(arguments, _KEYS)
        if "folder" not in options or "format" not in options:
            raise ValueError("folder=FOLDER and format=FORMAT[,FORMAT] must be given")
        names = options["format"].split(",")
        unknown = [name for name in names if name not in FORMATS]
        if unknown:
            raise ValueError(f"format must be among {', '.join(FORMATS)}, got {unknown[0]!r}")
        folder = Path(options["folder"])
        usual = (("images", 200), ("compare", 20))
        counts = [whole(options, key, count, 0) for key, count in usual]
        fill = flag(options, "calibrate", False)
        limits = limits_of(options)
        trained = Trained(folder)
        return trained.export(names, Path(options.get("out", folder)), counts, fill, limits)
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


class Trained:
    """The network that a run folder holds, as its program.

    Args:
        folder: of the run.
        overrides: of its configuration.

    Raises:
        FileNotFoundError, ValueError: the folder holds no trained network, or none of integers.
    """

    def __init__(self, folder: Path, overrides: Sequence[str] = ()) -> None:
        self.folder = folder
        self.spec: RunSpec = build(stored_config(folder, list(overrides)))
        model, _ = trained_model(self.spec, folder)
        data, settings = self.spec.data, self.spec.settings
        network = integerize(model, self.spec.pixels, data.shape, settings.policy)
        self.program = program_of(network, data.shape)
        floats = jax.tree.leaves(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
        self.float_bytes = 4 * sum(leaf.size for leaf in floats)

    def test_images(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The first test images and their labels."""
        data, parts = self.spec.data, []
        count = min(count, len(data.test_labels))
        for batch in data.test_batches(self.spec.settings.eval_batch):
            parts.append(batch)
            if sum(map(len, parts)) >= count:
                break
        return np.concatenate(parts)[:count], data.test_labels[:count]

    def export(
        self,
        names: Sequence[str],
        out: Path,
        counts: Sequence[int],
        fill: bool,
        limits: Limits | None = None,
    ) -> int:
        """Write the formats and print what is found out about each file.

        Args:
            names: of the formats.
            out: a folder, made where it is missing.
            counts: test images that files are held against the network on, and, of these, against
                their runtime.
            fill: as `qjax.program.lowering.lower.lower`.
            limits: of a runtime's process; None for the usual ones.

        Returns:
            2 when a format cannot hold the network or its file not be checked, which is told behind
            the others; 1 when a runtime's codes differ or an operator was not compared; else 0.
        """
        out.mkdir(parents=True, exist_ok=True)
        images = self.test_images(max(1, *counts))
        calibration, _ = self.spec.data.sample(_CALIBRATION)
        failed, errors = False, []
        for name in names:
            path = out / FORMATS[name].file
            try:
                exported = export(self.program, name, path, calibration, fill)
                found = check(exported, name, self.program, images, counts[1], limits)
            except (ValueError, OSError, ImportError) as error:
                errors.append(f"error: format {name}: {error}\n")
                continue
            print("\n  ".join(found.lines), flush=True)
            failed |= found.failed
        checkpoint = max((self.folder / CHECKPOINTS).glob("step_*"))
        size = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
        print(
            f"beside {self.float_bytes:,} bytes of float32 weights and statistics, and {size:,} of "
            "the checkpoint, which has the optimizer's too"
        )
        sys.stderr.write("".join(errors))
        return 2 if errors else int(failed)

    def engine(
        self, name: str, fill: bool, threads: int = THREADS, limits: Limits | None = None
    ) -> dict[str, object]:
        """Evaluate the test set by another runtime.

        Args:
            name: of the runtime, one of `ENGINES`.
            fill: as `export`.
            threads: that the runtime may use.
            limits: of the runtime's process while it is compared; None for the usual ones.

        Returns:
            What `python -m qjax.evaluate` prints.

        Raises:
            ValueError: no such runtime, or its codes differ on the sample.
            RuntimeUnfit: this processor's runtime does not compute what the file says.
        """
        if name not in ENGINES:
            raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {name!r}")
        data, size = self.spec.data, self.spec.settings.eval_batch
        engine = ENGINES[name]
        calibration, _ = data.sample(_CALIBRATION)
        with tempfile.TemporaryDirectory() as work:
            path = Path(work) / FORMATS[engine.form].file
            exported = export(self.program, engine.form, path, calibration, fill)
            sample = self.test_images(_PARITY)[0]
            parity = compared(exported, engine.form, sample, limits).summary()
            if parity["mismatched_codes"] or parity["unsupported"]:
                raise ValueError(f"{name} does not compute what the file says: {parity}")
            started = engine.start(path, size, threads)
            found = classify_all(started, data.test_batches(size), size)
        own = runner(self.program)
        sample, labels = self.test_images(_TIMED)
        batches = [sample[start : start + size] for start in range(0, len(sample), size)]
        ours = classify_all(lambda images: own(images)["class"], batches, size)
        same = float(np.mean(found.classes[: len(labels)] == ours.classes))
        return {
            "engine": name,
            "threads": threads,
            "parity": parity | {"images": _PARITY},
            "accuracy": {
                "engine": float(np.mean(found.classes == data.test_labels)),
                "integer": float(np.mean(ours.classes == labels)),
            },
            "images": {"engine": len(found.classes), "integer": len(labels)},
            "images_per_second": {
                "engine": round(found.images_per_second, 1),
                "integer": round(ours.images_per_second, 1),
            },
            "same_class": same,
            **({"warning": _UNLIKE.format(1 - same, len(labels))} if same < _ALIKE else {}),
        }


def trained_program(folder: Path) -> Program:
    """The program of a run folder's trained network.

    Raises:
        FileNotFoundError, ValueError: the folder holds no trained network, or none of integers.
    """
    return Trained(folder).program


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
