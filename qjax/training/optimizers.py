"""Optimizers as frozen values: SGD with momentum, Adam and AdamW.

`build` returns an `optax.GradientTransformation` that treats weights, normalisation parameters and
quantizer parameters as `qjax.training.updates` says: decay for the first only, an own learning rate
for the last. The fields in `traced` may vary without a new compilation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import optax
from jaxtyping import PyTree

from qjax.training import checks
from qjax.training.schedules import Constant, Schedule
from qjax.training.updates import TRACED, grouped_updates


@dataclasses.dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent with momentum and L2 decay, as the papers use it.

    With the decayed gradient d = g + weight_decay * w:

        m <- momentum * m + d
        w <- w - rate * m    or, with Nesterov,    w <- w - rate * (d + momentum * m)

    The rate multiplies after the momentum (as in PyTorch; Caffe keeps it inside).

    Attributes:
        learning_rate: base rate, > 0. Traced.
        momentum: in [0, 1).
        nesterov: look one step ahead along the momentum.
        weight_decay: of the `weight` group, >= 0, added to the gradient. Traced.
        schedule: multiplier of the base rate over the run.
        clip_norm: largest global norm of the gradients, > 0; None for no clipping.
        quantizer_learning_rate_scale: multiplier of the rate of the `quantizer` group, >= 0; 0
            holds them. Traced.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> params = {"kernel": jnp.ones(2), "clip": jnp.ones(())}
        >>> labels = {"kernel": "weight", "clip": "quantizer"}
        >>> optimizer = Sgd(learning_rate=0.1, momentum=0.0, weight_decay=0.5).build(10, 10, labels)
        >>> gradients = jax.tree.map(jnp.ones_like, params)
        >>> updates, state = optimizer.update(gradients, optimizer.init(params), params)
        >>> round(float(updates["kernel"][0]), 3), round(float(updates["clip"]), 3)
        (-0.15, -0.1)
    """

    learning_rate: float
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0
    schedule: Schedule = Constant()
    clip_norm: float | None = None
    quantizer_learning_rate_scale: float = 1.0

    traced: ClassVar[Sequence[str]] = tuple(TRACED)

    def __post_init__(self) -> None:
        _check_fields(self, {"momentum": "[0, 1)"})
        checks.boolean("Sgd.nesterov", self.nesterov)

    def build(
        self, total_steps: int, steps_per_epoch: int, labels: PyTree[str]
    ) -> optax.GradientTransformation:
        """The transformation of gradients to updates; see `_build` for arguments and errors."""
        if self.momentum:
            rule = optax.trace(decay=self.momentum, nesterov=self.nesterov)
        else:
            rule = optax.identity()
        return _build(self, rule, total_steps, steps_per_epoch, labels, decoupled=False)


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba, arXiv 1412.6980), its L2 decay coupled: a part of the gradient.

    Attributes:
        learning_rate: base rate, > 0. Traced.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the root of the bias-corrected second moment, > 0 (DoReFa and PACT's SVHN
            rows: 1e-5).
        weight_decay: of the `weight` group, >= 0, added to the gradient. Traced.
        schedule: multiplier of the base rate over the run.
        clip_norm: largest global norm of the gradients, > 0; None for no clipping.
        quantizer_learning_rate_scale: multiplier of the rate of the `quantizer` group, >= 0; 0
            holds them. Traced.
    """

    learning_rate: float
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    schedule: Schedule = Constant()
    clip_norm: float | None = None
    quantizer_learning_rate_scale: float = 1.0

    traced: ClassVar[Sequence[str]] = tuple(TRACED)

    def __post_init__(self) -> None:
        _check_fields(self, {"b1": "[0, 1)", "b2": "[0, 1)", "eps": "(0, inf)"})

    def build(
        self, total_steps: int, steps_per_epoch: int, labels: PyTree[str]
    ) -> optax.GradientTransformation:
        """The transformation of gradients to updates; see `_build` for arguments and errors."""
        rule = optax.scale_by_adam(b1=self.b1, b2=self.b2, eps=self.eps)
        return _build(self, rule, total_steps, steps_per_epoch, labels, decoupled=False)


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Adam with decoupled decay (Loshchilov and Hutter, arXiv 1711.05101).

        w <- w - rate * (Adam's direction + weight_decay * w)

    Attributes: as `Adam`, but `weight_decay` stays outside the moments.
    """

    learning_rate: float
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    schedule: Schedule = Constant()
    clip_norm: float | None = None
    quantizer_learning_rate_scale: float = 1.0

    traced: ClassVar[Sequence[str]] = tuple(TRACED)

    def __post_init__(self) -> None:
        _check_fields(self, {"b1": "[0, 1)", "b2": "[0, 1)", "eps": "(0, inf)"})

    def build(
        self, total_steps: int, steps_per_epoch: int, labels: PyTree[str]
    ) -> optax.GradientTransformation:
        """The transformation of gradients to updates; see `_build` for arguments and errors."""
        rule = optax.scale_by_adam(b1=self.b1, b2=self.b2, eps=self.eps)
        return _build(self, rule, total_steps, steps_per_epoch, labels, decoupled=True)


def _check_fields(optimizer: Sgd | Adam | AdamW, more: dict[str, str]) -> None:
    """Checks every number, sets it as a float, and checks that the finished value can be hashed."""
    kind = type(optimizer).__name__
    intervals = TRACED | more
    if optimizer.clip_norm is not None:
        intervals = intervals | {"clip_norm": "(0, inf)"}
    for name, interval in intervals.items():
        value = checks.number(f"{kind}.{name}", getattr(optimizer, name), interval)
        object.__setattr__(optimizer, name, value)
    if not isinstance(optimizer.schedule, Schedule):
        raise TypeError(
            f"{kind}.schedule must be a value of qjax.training.schedules,"
            f" got {optimizer.schedule!r}"
        )
    hash(optimizer)


def _build(
    optimizer: Sgd | Adam | AdamW,
    rule: optax.GradientTransformation,
    total_steps: int,
    steps_per_epoch: int,
    labels: PyTree[str],
    decoupled: bool,
) -> optax.GradientTransformation:
    """The transformation with a rule and the value's own numbers.

    Args:
        optimizer: the value.
        rule: momentum or moments.
        total_steps: updates in the whole run (of a phase), at least 1.
        steps_per_epoch: updates in one epoch, at least 1.
        labels: the trainable parameters' tree with `weight`, `norm` or `quantizer` at each leaf.
        decoupled: whether the weight decay bypasses `rule`.

    Returns:
        A transformation whose `update` needs the parameters, and whose state is an
        `OptimizerState`.

    Raises:
        TypeError: a number of steps that is not whole.
        ValueError: a number of steps below 1, an unknown label, or (at `init`) labels of another
            structure than the parameters.
    """
    return grouped_updates(
        rule,
        hyperparams={name: getattr(optimizer, name) for name in TRACED},
        fraction=optimizer.schedule.build(total_steps, steps_per_epoch),
        labels=labels,
        clip_norm=optimizer.clip_norm,
        decoupled=decoupled,
    )
