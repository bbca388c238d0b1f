"""Training steps of other libraries on a network of the same shape, for `qat_step.py --peers`."""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array


class _Block(nnx.Module):
    def __init__(self, before: int, after: int, stride: int, rngs: nnx.Rngs):
        def conv(channels: int, step: int) -> nnx.Conv:
            return nnx.Conv(channels, after, (3, 3), step, padding=1, use_bias=False, rngs=rngs)

        self.conv1, self.conv2 = conv(before, stride), conv(after, 1)
        self.bn1, self.bn2 = (nnx.BatchNorm(after, rngs=rngs) for _ in range(2))
        self.stride, self.more = stride, after - before

    def __call__(self, x: Array) -> Array:
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        widths = ((0, 0), (0, 0), (0, 0), (self.more // 2, self.more - self.more // 2))
        return nnx.relu(y + jnp.pad(x[:, :: self.stride, :: self.stride], widths))


class StockResNet(nnx.Module):
    """ResNet of depth 6n + 2 from Flax's own layers, as a Qwix user would write it."""

    def __init__(self, depth: int, rngs: nnx.Rngs):
        self.stem = nnx.Conv(3, 16, (3, 3), padding=1, use_bias=False, rngs=rngs)
        self.bn = nnx.BatchNorm(16, rngs=rngs)
        blocks, channels = [], 16
        for stage, features in enumerate((16, 32, 64)):
            for index in range((depth - 2) // 6):
                stride = 2 if stage and not index else 1
                blocks.append(_Block(channels, features, stride, rngs))
                channels = features
        self.blocks = nnx.List(blocks)
        self.classifier = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Logits."""
        x = nnx.relu(self.bn(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.classifier(jnp.mean(x, (1, 2)))


def _stepper(model: nnx.Module, images: Array, targets: Array) -> Callable[[], float]:
    optimizer = optax.sgd(0.01, momentum=0.9, nesterov=True)
    graph, trainable, rest = nnx.split(model, nnx.Param, ...)
    trainable, rest = jax.tree.map(jnp.copy, (trainable, rest))

    def loss(trainable, rest):
        copy = nnx.merge(graph, trainable, rest, copy=True)
        logits = copy(images)  # pyright: ignore[reportCallIssue]
        _, _, after = nnx.split(copy, nnx.Param, ...)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return losses.mean(), after

    def step(state):
        trainable, rest, opt = state
        (_, rest), gradients = jax.value_and_grad(loss, has_aux=True)(trainable, rest)
        updates, opt = optimizer.update(gradients, opt, trainable)
        return optax.apply_updates(trainable, updates), rest, opt

    compiled = jax.jit(step, donate_argnums=0)
    holder = [(trainable, rest, optimizer.init(trainable))]

    def take() -> float:
        begin = time.perf_counter()
        holder[0] = compiled(holder[0])
        jax.block_until_ready(holder[0])
        return 1e3 * (time.perf_counter() - begin)

    return take


def qwix_steppers(depth: int, images: Array, targets: Array) -> dict[str, Callable[[], float]]:
    """Qwix on its own model: `qwix_float`, `qwix_fake` (fake quantization) and `qwix_int8`.

    int8 in both, since int4 products do not compile on a CPU.

    Raises:
        ImportError: the extra `peers` is not installed.
    """
    try:
        import qwix  # pyright: ignore[reportMissingImports]  # an extra that the checks do without
    except ImportError as error:
        raise ImportError("Qwix is not installed: pip install -e '.[peers]'") from error
    x = images.astype(jnp.float32) / 255
    settings = {"module_path": ".*", "weight_qtype": jnp.int8, "act_qtype": jnp.int8}
    providers = {
        "qwix_fake": qwix.OdmlQatProvider([qwix.QuantizationRule(**settings)]),
        "qwix_int8": qwix.QtProvider([qwix.QtRule(**settings)]),
    }
    takes = {"qwix_float": _stepper(StockResNet(depth, nnx.Rngs(0)), x, targets)}
    for name, provider in providers.items():
        model = qwix.quantize_model(StockResNet(depth, nnx.Rngs(0)), provider, x)
        takes[name] = _stepper(model, x, targets)  # pyright: ignore[reportArgumentType]
    return takes
