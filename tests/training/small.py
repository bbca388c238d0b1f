"""A network and a data set so small that a test can train it in a moment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from qjax.core.requantize import q31_even
from qjax.data import synthetic
from qjax.data.dataset import Dataset
from qjax.layers import Act, ConvBN, Dense, GlobalAvgPool, Value
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.pact import Pact
from qjax.recipe import Recipe, Rule
from qjax.training.loop import PhaseLoop
from qjax.training.optimizers import Sgd
from qjax.training.phases import Phase
from qjax.training.spec import RunSpec, Settings
from qjax.training.state import TrainState

DATA = synthetic.load(height=6, width=6, classes=3, train_size=32, test_size=16)
BATCH = 8


class Tiny(nnx.Module):
    """A convolution, an activation and a classifier."""

    def __init__(self, seed: int = 0):
        rngs = nnx.Rngs(seed)
        self.conv = ConvBN(1, 4, 3, rngs=rngs)
        self.act = Act()
        self.mean = GlobalAvgPool()
        self.classifier = Dense(4, 3, rngs=rngs)

    def __call__(self, x: Value) -> Value:
        return self.classifier(self.mean(self.act(self.conv(x))))


def rules(**more: Any) -> tuple[Rule, ...]:
    """Rules that make `Tiny` an integer network; `more` adds slots to the last one."""
    ends = AffineActivation(8)
    return (
        Rule("first", input=ends),
        Rule("last", input=ends),
        Rule(weight=AffineWeight(4), output=Pact(4), **more),
    )


def spec(
    *phases: Phase, data: Dataset = DATA, recipe: Recipe | None = None, **more: Any
) -> RunSpec:
    """A run of `Tiny`."""
    settings = Settings(BATCH, q31_even, "q31_even", tensorboard=False, progress=False)
    names = {"experiment": "test", "method": "pact", "data": "synthetic", "model": "tiny"}
    fields = {"seed": 0, "settings": settings, "config": {"seed": 0}} | more
    return RunSpec(
        names=names | {"recipe": "custom"},
        w_bits=4,
        a_bits=4,
        data=data,
        make_model=lambda: Tiny(),
        recipe=recipe or Recipe(rules()),
        phases=phases or (Phase("quantized", 1, Sgd(0.1)),),
        **fields,
    )


def loop(
    run: RunSpec,
    index: int = 0,
    model: nnx.Module | None = None,
    before: TrainState | None = None,
    teacher: nnx.Module | None = None,
) -> PhaseLoop:
    """The loop of one phase, at its start."""
    start = run.enter(model or run.make_model(), index)
    settings = run.loop_settings(index)
    return PhaseLoop(start, run.phases[index], run.data, settings, teacher, before)


def steps(made: PhaseLoop, count: int) -> Iterator[Any]:
    """Takes steps of the first epoch; yields a copy of the state after each."""
    for position in range(count):
        made.state, _ = made.step(made.state, made.batch(0, position))
        # The next step takes the buffers.
        yield jax.tree.map(jnp.copy, made.state)
