"""Random networks in every form: simulated, integer, program, ONNX and TFLite agree, or are named.

    python experiments/reliability/random_networks.py --count 500
    python experiments/reliability/random_networks.py --count 1 --seed 37 --forms program

Each seed is a network of its own: convolutions (1x1 and 3x3, strides, groups, depthwise,
transposed), additions, differences, concatenations, maximum and average pools, a dense layer;
weights and activations of 2 to 8 bits, symmetric or not, per tensor or per channel; batch
normalizations with scales of both signs. Compared on random images:

- *integer* with *simulated*: at each rounding, fed the simulation's codes, a code may differ only
  where the value lies within 1e-3 of a boundary (`law_violations` counts the others);
- *program* with *integer*: logits, which must be equal;
- *onnx* and *tflite* with onnxruntime and LiteRT's reference kernels, operator by operator: codes,
  which must be equal. What a format cannot hold is `refused`, by its reason.

Prints one line of JSON, with the seeds that failed; exit status 1 if there is one.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import sys
import tempfile
import time
import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qjax.agreement import integer_law
from qjax.export import program_of
from qjax.floatfree import check_float_free
from qjax.integerize import IntegerNetwork, PixelInput, integerize
from qjax.layers import (
    Act,
    Add,
    AvgPool,
    Concat,
    ConvBN,
    ConvTransposeBN,
    Dense,
    Flatten,
    GlobalAvgPool,
    LeakyRelu,
    MaxPool,
    Sub,
    Value,
)
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.program.base import NotExpressible
from qjax.program.comparison import RuntimeUnfit
from qjax.program.formats import compared, export
from qjax.program.run import runner
from qjax.recipe import Recipe, Rule
from qjax.surgery import quantize

PIXELS = PixelInput((0.5, 0.45, 0.4), (0.25, 0.2, 0.3))
FORMS = ("program", "onnx", "tflite")
IMAGES = 8


class Block(nnx.Module):
    """One random step of a network; `kind` says which."""

    def __init__(self, rng: np.random.Generator, kind: str, channels: int, rngs: nnx.Rngs):
        self.kind = kind
        self.features = int(rng.choice([3, 4, 8, 12, 20]))
        stride, kernel = int(rng.integers(1, 3)), int(rng.choice([1, 3]))
        if kind != "max_pool":
            self.act = Act(str(rng.choice(["relu", "relu", "relu6"])))
        if kind == "depthwise":
            self.features = channels * int(rng.integers(1, 3))
            self.conv = ConvBN(channels, self.features, 3, stride, groups=channels, rngs=rngs)
        elif kind == "up":
            self.conv = ConvTransposeBN(channels, self.features, int(rng.integers(2, 4)), rngs=rngs)
            self.act = LeakyRelu(0.1)
        elif kind in ("add", "sub"):
            self.features = channels
            self.conv = ConvBN(channels, channels, kernel, rngs=rngs)
            self.join = Add() if kind == "add" else Sub()
        elif kind in ("max_pool", "average_pool"):
            self.features = channels
            self.pool = MaxPool(2) if kind == "max_pool" else AvgPool(2)
        else:
            groups = int(rng.choice([1, 1, 2])) if channels % 2 == self.features % 2 == 0 else 1
            self.conv = ConvBN(channels, self.features, kernel, stride, groups=groups, rngs=rngs)
        if kind == "concat":
            self.conv = ConvBN(channels, self.features, kernel, rngs=rngs)
            self.join = Concat()
            self.features += channels
        if kind not in ("max_pool", "average_pool"):
            shake(self.conv.norm, rng)

    def __call__(self, x: Value) -> Value:
        """(n, h, w, c) to (n, p, q, features)."""
        if self.kind == "max_pool":
            return self.pool(x)
        if self.kind == "average_pool":
            return self.act(self.pool(x))
        if self.kind in ("add", "sub"):
            return self.act(self.join(self.conv(x), x))
        y = self.act(self.conv(x))
        return self.join(y, x) if self.kind == "concat" else y


def shake(norm: nnx.Module, rng: np.random.Generator) -> None:
    """Statistics and parameters as training could leave them, scales of both signs."""
    size = norm.scale.shape[0]  # pyright: ignore[reportAttributeAccessIssue]
    for name, values in (
        ("scale", rng.choice([-1, 1, 1, 1], size) * rng.uniform(0.3, 1.5, size)),
        ("bias", rng.normal(0, 0.3, size)),
        ("mean", rng.normal(0, 0.3, size)),
        ("var", rng.uniform(0.3, 2.0, size)),
    ):
        getattr(norm, name)[...] = jnp.asarray(values, jnp.float32)


class RandomNetwork(nnx.Module):
    """Three to six blocks and a classifier, all drawn from a seed."""

    def __init__(self, seed: int):
        rng, rngs = np.random.default_rng(seed), nnx.Rngs(seed)
        self.side = int(rng.choice([8, 12]))
        self.stem = Block(rng, "conv", 3, rngs)
        self.blocks, channels = nnx.List([]), self.stem.features
        strides: tuple[int, ...] = self.stem.conv.geometry.strides  # pyright: ignore
        side = -(-self.side // strides[0])
        kinds = ["conv", "depthwise", "add", "sub", "concat", "max_pool", "average_pool", "up"]
        for _ in range(int(rng.integers(2, 6))):
            kind = str(rng.choice([k for k in kinds if side >= 4 or "pool" not in k]))
            block = Block(rng, kind, channels, rngs)
            strided = kind in ("conv", "depthwise") and block.conv.geometry.strides[0] == 2  # pyright: ignore
            side = side // 2 if "pool" in kind else -(-side // 2) if strided else side
            side *= 1 + (kind == "up")
            self.blocks.append(block)
            channels = block.features
        means = rng.random() < 0.7 or side > 8
        self.end = GlobalAvgPool() if means else Flatten()
        self.classifier = Dense(channels * (1 if means else side * side), 7, rngs=rngs)

    def __call__(self, x: Value) -> Value:
        """(n, side, side, 3) images to (n, 7) logits."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.end(x))


def recipe_of(rng: np.random.Generator) -> Recipe:
    """Random widths and symmetries; half of the recipes round convolutions before additions."""

    def weight() -> AffineWeight:
        flips = (bool(flip) for flip in rng.integers(0, 2, 2))
        return AffineWeight(int(rng.integers(2, 9)), *flips)

    def act(least: int) -> AffineActivation:
        return AffineActivation(int(rng.integers(least, 9)), bool(rng.random() < 0.3))

    ends = (
        Rule("first", weight=weight(), input=act(6)),
        Rule("last", weight=weight(), input=act(4)),
    )
    rounded = (Rule("blocks.*", kind="conv", output=act(4)),) if rng.random() < 0.5 else ()
    joined = (Rule("*", kind="concat", output=act(4)),)
    return Recipe((*ends, *rounded, *joined, Rule(weight=weight(), output=act(2))))


def pruned(recipe: Recipe, model: RandomNetwork) -> Recipe:
    """Without the rules that this model has no layer for."""
    kinds = {block.kind for block in model.blocks}
    rules = [r for r in recipe.rules if r.kind != "concat" or "concat" in kinds]
    convolves = bool(kinds - {"max_pool", "average_pool"})
    return Recipe([r for r in rules if not (r.kind == "conv" and not convolves)])


def built(seed: int) -> tuple[nnx.Module, IntegerNetwork, np.ndarray]:
    """Simulated and integer network of a seed, and images."""
    model = RandomNetwork(seed)
    rng = np.random.default_rng((seed, 1))
    coarse = rng.integers(0, 256, (IMAGES, 4, 4, 3))
    factor = model.side // 4
    pixels = coarse.repeat(factor, 1).repeat(factor, 2).astype(np.uint8)
    model.eval()
    net = quantize(model, pruned(recipe_of(rng), model), PIXELS.normalise(jnp.asarray(pixels)))
    net.eval()
    return net, integerize(net, PIXELS, pixels.shape[1:]), pixels


def compare(seed: int, forms: tuple[str, ...], folder: Path) -> collections.Counter:
    """Counts for one network; `*_violations` and `*_mismatched` ought to be zero."""
    net, network, pixels = built(seed)
    counts = collections.Counter(networks=1)
    counts["float_values"] = len(check_float_free(network, pixels.shape[1:]))
    for found in integer_law(net, network, pixels).values():
        counts["codes"] += found.codes
        counts["differing"] += found.differing
        counts["law_violations"] += found.differing if found.distance > 1e-3 else 0
    program = program_of(network, pixels.shape[1:])
    logits = np.asarray(jax.jit(network.logits)(jnp.asarray(pixels)))
    counts["program_mismatched"] = int(np.sum(runner(program)(pixels)["logits"] != logits))
    for name in forms:
        if name == "program":
            continue
        try:
            exported = export(program, name, folder / f"{seed}.{name}", pixels, False)
            results = compared(exported, name, pixels).results
        except NotExpressible as refusal:
            counts[f"{name}_refused: {re.sub("'[^']*'", '...', str(refusal))[:80]}"] += 1
            continue
        counts[f"{name}_files"] += 1
        counts[f"{name}_codes"] += sum(row.compared for row in results)
        counts[f"{name}_mismatched"] += sum(row.mismatched for row in results)
    return counts


def failed(counts: collections.Counter) -> bool:
    """Whether two forms disagreed."""
    wrong = [name for name in counts if name.endswith(("_violations", "_mismatched"))]
    return any(counts[name] for name in (*wrong, "float_values"))


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="of the first network")
    parser.add_argument("--forms", default=",".join(FORMS))
    options = parser.parse_args()
    forms = tuple(options.forms.split(","))
    total, failures, begin = collections.Counter(), {}, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seed, options.seed + options.count):
            try:
                counts = compare(seed, forms, Path(folder))
            except RuntimeUnfit as error:
                sys.exit(f"no reference here: {error}; choose --forms without it")
            except Exception as error:  # every seed is tried, and every failure named
                traceback.print_exc()
                failures[seed] = f"{type(error).__name__}: {error}"[:200]
                continue
            if failed(counts):
                failures[seed] = {name: n for name, n in counts.items() if n}
            total += counts
            jax.clear_caches()
            done = f"{seed - options.seed + 1} of {options.count}, {len(failures)} failed"
            sys.stderr.write(f"\r{done}, {time.perf_counter() - begin:.0f} s")
    sys.stderr.write("\n")
    line = {"networks": total["networks"], "law_violations": 0, "program_mismatched": 0}
    line |= {name: total[name] for name in ("onnx_mismatched", "tflite_mismatched")}
    line |= dict(sorted(total.items())) | {"failures": failures}
    print(json.dumps(line | {"seconds": round(time.perf_counter() - begin)}))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
