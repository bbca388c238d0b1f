"""Cost of quantization-aware training: the PACT W4A4 step over the same float step.

    python experiments/bench/qat_step.py [--peers] [--rounds 15] [--depth 20] [--batch 64]

ResNet-20 on 32x32 images, batch 64, SGD with momentum, one process. Float and quantized steps
alternate, so that a noisy machine disturbs both alike; each figure is the median over the rounds.
Prints one JSON line: `ratio`, `float_ms`, `quantized_ms`; with `--peers` also Qwix's ratios, over
its own float step of the same shape.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qjax.integerize import PixelInput
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.dorefa import DoReFaWeight
from qjax.methods.pact import Pact
from qjax.models.resnet import ResNet
from qjax.recipe import ends_8bit
from qjax.surgery import quantize
from qjax.training.augment import Augment
from qjax.training.optimizers import Sgd
from qjax.training.state import TrainState, labels, split
from qjax.training.step import Batch, Hooks, make_step

PIXELS = PixelInput((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))


def stepper(model: nnx.Module, batch: Batch) -> Callable[[], float]:
    """A function that takes one training step and returns its milliseconds."""
    graphs, trainable, rest = split(model)
    optimizer = Sgd(0.01).build(1000, 100, labels(trainable))
    start = TrainState(trainable, rest, optimizer.init(trainable), jnp.int32(0), jnp.int32(-1))
    step = jax.jit(
        make_step(graphs, optimizer, PIXELS, Augment(), Hooks(), seed=0), donate_argnums=0
    )
    holder = [start]

    def take() -> float:
        begin = time.perf_counter()
        holder[0], metrics = step(holder[0], batch)
        jax.block_until_ready((holder[0], metrics))
        return 1e3 * (time.perf_counter() - begin)

    return take


def alternate(takes: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each stepper over alternating rounds, after two to warm up."""
    times: dict[str, list[float]] = {name: [] for name in takes}
    for i in range(rounds + 2):
        for name, take in takes.items():
            elapsed = take()
            if i >= 2:
                times[name].append(elapsed)
    return times


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--peers", action="store_true", help="also Qwix (extra `peers`)")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (options.batch, 32, 32, 3)), jnp.uint8)
    targets = jnp.asarray(rng.integers(0, 10, options.batch), jnp.int32)
    batch = Batch(images, targets, jnp.arange(options.batch))
    model = ResNet(options.depth, rngs=nnx.Rngs(0))
    recipe = ends_8bit(
        DoReFaWeight(4), Pact(4), AffineWeight(8, per_channel=True), AffineActivation(8)
    )
    quantized = quantize(model, recipe, PIXELS.normalise(images))
    takes = {"float": stepper(model, batch), "quantized": stepper(quantized, batch)}
    if options.peers:
        from peers import qwix_steppers  # beside this file

        takes |= qwix_steppers(options.depth, images, targets)
    times = alternate(takes, options.rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = [q / f for q, f in zip(times["quantized"], times["float"], strict=True)]
    line = {
        "ratio": round(medians["quantized"] / medians["float"], 4),
        "ratio_of_pairs": round(statistics.median(ratios), 4),
        **{f"{name}_ms": round(value, 2) for name, value in medians.items()},
    }
    if options.peers:
        for name in ("qwix_fake", "qwix_int8"):
            line[f"{name}_ratio"] = round(medians[name] / medians["qwix_float"], 4)
    print(json.dumps(line | {"rounds": options.rounds, "device": jax.devices()[0].device_kind}))


if __name__ == "__main__":
    main()
