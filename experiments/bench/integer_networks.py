"""The networks of `integer.py`, as XLA, LiteRT and onnxruntime run them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qjax.export import program_of
from qjax.integerize import PixelInput, integerize
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.models.resnet import ResNet
from qjax.program.formats import export
from qjax.recipe import Recipe, Rule
from qjax.surgery import quantize

PIXELS = PixelInput((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
SHAPE = (32, 32, 3)
EVALUATION_BATCH = 256


def pixels(count: int, seed: int = 0) -> np.ndarray:
    """Smooth random images, uint8."""
    rng = np.random.default_rng((seed, count))
    coarse = rng.integers(0, 256, (count, 8, 8, 3))
    return coarse.repeat(4, 1).repeat(4, 2).astype(np.uint8)


class Network:
    """A ResNet of some depth, its integer form and its files.

    Args:
        depth: 6n + 2.
    """

    def __init__(self, depth: int) -> None:
        weight, act = AffineWeight(8, per_channel=True), AffineActivation(8)
        ends = tuple(Rule(end, weight=weight, input=act) for end in ("first", "last"))
        # A file's addition takes codes: the convolution in front of it is rounded, as TFLite does.
        before_add = Rule("blocks.*.conv2", kind="conv", output=act)
        recipe = Recipe((*ends, before_add, Rule(weight=weight, output=act)))
        images = PIXELS.normalise(jnp.asarray(pixels(64)))
        self.model = ResNet(depth, rngs=nnx.Rngs(0))
        # Batch statistics of real size, or activations shrink from layer to layer.
        self.model.train()
        for _ in range(30):
            nnx.jit(lambda model, x: model(x))(self.model, images)
        self.model.eval()
        quantized = quantize(self.model, recipe, images)
        self.network = integerize(quantized, PIXELS, SHAPE)
        self.depth = depth

    def calls(self, batch: int) -> dict[str, Callable[[], object]]:
        """Compiled programs of a batch: the integer one and its float32 form."""
        images = jax.device_put(pixels(batch))

        def real(images: jax.Array) -> jax.Array:
            return jnp.argmax(self.model(PIXELS.normalise(images)), -1)

        return {"integer": _compiled(self.network, images), "float32": _compiled(real, images)}

    def export(self, folder: Path) -> dict[str, Path]:
        """The same network as files of other runtimes."""
        program = program_of(self.network, SHAPE)
        files = {}
        for name in ("tflite", "onnx"):
            files[name] = folder / f"resnet{self.depth}.{name}"
            export(program, name, files[name], pixels(64), False)
        return files

    def peers(
        self, files: dict[str, Path], batch: int, threads: int
    ) -> dict[str, Callable[[], object]]:
        """The files in their runtimes."""
        images = pixels(batch)
        found: dict[str, Callable[[], object]] = {}
        if "tflite" in files:
            found["litert"] = litert(files["tflite"], images, threads)
        if "onnx" in files:
            found["onnxruntime"] = onnxruntime(files["onnx"], images, threads)
        return found

    def evaluate(self, count: int) -> np.ndarray:
        """Classes of so many images, made one batch after the other."""
        graph, state = nnx.split(self.network)
        run = jax.jit(lambda state, images: nnx.merge(graph, state)(images))
        found = [
            np.asarray(run(state, pixels(EVALUATION_BATCH, start)))
            for start in range(0, count, EVALUATION_BATCH)
        ]
        return np.concatenate(found)[:count]


def _compiled(function: Callable, images: jax.Array) -> Callable[[], object]:
    program = jax.jit(lambda images: function(images)).lower(images).compile()
    return lambda: jax.block_until_ready(program(images))


def litert(path: Path, images: np.ndarray, threads: int) -> Callable[[], object]:
    """LiteRT with its default kernels (XNNPACK)."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    number = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(number, images.shape)
    interpreter.allocate_tensors()

    def call() -> object:
        interpreter.set_tensor(number, images)
        return interpreter.invoke()

    return call


def onnxruntime(path: Path, images: np.ndarray, threads: int) -> Callable[[], object]:
    """onnxruntime with all its optimizations."""
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: images})
