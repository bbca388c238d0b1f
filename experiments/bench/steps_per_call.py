"""Training steps a second: one a call against many in one `lax.scan`, on whatever device is there.

    python experiments/bench/steps_per_call.py [--depth 20] [--batch 128] [--most 64] [--seconds 10]

PACT W4A4 ResNet on 32x32 images with the crops and flips of CIFAR-10, through the loop that a run
uses. Prints one JSON line: `single` and `scanned` in steps a second, `ratio` of the second to the
first, and the seconds of each one's first call, compilation included. On CPU a call that scans is
slow: take `--batch 16 --most 4`.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import jax
from flax import nnx

from qjax.core.requantize import q31_even
from qjax.data import synthetic
from qjax.data.dataset import Augmentation, Dataset
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.dorefa import DoReFaWeight
from qjax.methods.pact import Pact
from qjax.models.resnet import ResNet
from qjax.recipe import ends_8bit
from qjax.training.devices import ONE
from qjax.training.loop import PhaseLoop
from qjax.training.optimizers import Sgd
from qjax.training.phases import Phase
from qjax.training.spec import RunSpec, Settings


def loop(data: Dataset, depth: int, batch: int, most: int) -> PhaseLoop:
    """The quantized training of a ResNet, up to `most` steps in a call."""
    spec = RunSpec(
        names={},
        w_bits=4,
        a_bits=4,
        seed=0,
        data=data,
        make_model=lambda: ResNet(depth, data.shape[-1], data.classes, rngs=nnx.Rngs(0)),
        recipe=ends_8bit(DoReFaWeight(4), Pact(4), AffineWeight(8), AffineActivation(8)),
        phases=(Phase("quantized", 1_000_000, Sgd(0.01)),),
        settings=Settings(batch, q31_even, "q31_even", steps_per_call=most),
        config={},
    )
    return PhaseLoop(spec.enter(spec.make_model(), 0), spec.phases[0], data, spec.loop_settings(0))


def measure(made: PhaseLoop, most: int, seconds: float) -> tuple[float, float]:
    """(steps a second, seconds of the first call); the host is at most `most` steps ahead."""
    stream = made.calls(0, 10**9)
    begin = time.perf_counter()
    made.state, metrics = made.call(made.state, next(stream))
    jax.block_until_ready(metrics)
    first = time.perf_counter() - begin
    begin, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - begin < seconds:
        for _ in range(max(1, most // made.steps_per_call)):
            made.state, metrics = made.call(made.state, next(stream))
            calls += 1
        jax.block_until_ready(metrics)
    assert int(made.state.failed) < 0
    return calls * made.steps_per_call / (time.perf_counter() - begin), first


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--most", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    data = synthetic.load(
        height=32,
        width=32,
        channels=3,
        train_size=options.batch * options.most * 4,  # a whole number of calls an epoch
        test_size=options.batch,
        augmentation=Augmentation(pad=4, flip=True),
    )
    found: dict[str, Any] = {"device": ONE.name, "jax": jax.__version__, **vars(options)}
    for name, most in (("single", 1), ("scanned", options.most)):
        made = loop(data, options.depth, options.batch, most)
        rate, first = measure(made, options.most, options.seconds)
        found |= {name: round(rate, 3), f"{name}_first_call_s": round(first, 1)}
    found["ratio"] = round(found["scanned"] / found["single"], 3)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
