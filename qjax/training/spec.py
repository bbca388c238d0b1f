"""What a run is, apart from where it stands: everything that training and re-evaluation share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from qjax.core.requantize import Policy
from qjax.integerize import PixelInput
from qjax.layers.norm import BatchNorm, FoldedFrozen
from qjax.recipe import Recipe
from qjax.surgery import error_slots, fold_batch_norm, quantize, requantize, slots, watch
from qjax.target import Target
from qjax.training.calls import AUTO, check_steps_per_call
from qjax.training.devices import check_devices
from qjax.training.feed import Images
from qjax.training.hooks import Hooks, check_smoothing, joined, run_on
from qjax.training.loop import LoopSettings
from qjax.training.phases import Phase, chain, check_phases
from qjax.training.step import USUAL, StepSettings

SAMPLE = 64
"""Training images from which data-dependent first numbers come."""

SHOWN = ("weight", "act", "procedure", "bn", "optim")
"""Groups of the configuration whose numbers stand in TensorBoard's table of a sweep."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a run is carried out.

    Attributes:
        batch_size: images a training step.
        policy, policy_name: requantization of the integer network.
        eval_batch: images at a time in evaluation.
        check_every: steps between looks for NaN.
        checkpoint_every: epochs between checkpoints, or "auto": as many as keep saving below a
            twentieth of the time.
        checkpoint_minutes: after which a checkpoint is written within an epoch too; None for never.
        diagnose_every: epochs between diagnoses of the quantizers.
        devices: how many share each batch, see `qjax.training.devices.find_devices`.
        steps_per_call: most training steps in one call of a compiled program, or "auto".
        tensorboard, progress: what is written and shown.
        step: how a training step computes.
        averaged: whether evaluation uses the moving average of the weights.
    """

    batch_size: int
    policy: Policy
    policy_name: str
    eval_batch: int = 256
    check_every: int = 50
    checkpoint_every: int | str = 1
    checkpoint_minutes: float | None = 30
    diagnose_every: int = 1
    devices: int | str = AUTO
    steps_per_call: int | str = AUTO
    tensorboard: bool = True
    progress: bool = True
    step: StepSettings = USUAL
    averaged: bool = False

    def __post_init__(self) -> None:
        names = ["batch_size", "eval_batch", "check_every", "checkpoint_every", "diagnose_every"]
        for name in names:
            value, auto = getattr(self, name), name == "checkpoint_every"
            if auto and value == AUTO:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                allowed = "auto or a whole number" if auto else "a whole number"
                raise ValueError(f"{name} must be {allowed} of at least 1, got {value!r}")
        minutes = self.checkpoint_minutes
        if minutes is not None and (isinstance(minutes, bool | str) or not minutes > 0):
            raise ValueError(f"checkpoint_minutes must be positive or null, got {minutes!r}")
        check_devices(self.devices)
        check_steps_per_call(self.steps_per_call)


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """A run as values.

    Attributes:
        names: experiment, method, data, model, recipe as the record names them.
        w_bits, a_bits, seed: likewise.
        data: both splits.
        make_model: a fresh float model with the seed's initial weights.
        recipe: which quantizer goes where.
        phases: what is trained.
        settings: how.
        config: the resolved configuration, plain values.
        hooks: the method's part in every quantized phase, beside what the phase brings itself;
            their `initialise` opens the run, whatever its first phase.
        e_bits, g_bits: of errors and weight gradients; the record has them where quantizers of
            these widths are in force.
        norm: how batch normalization meets the weight quantizers from the first quantized phase on,
            a class of `qjax.layers.norm`; None for separate.
        load_teacher: the trained network of a run folder, for `Teacher.folder`.
        target: what the quantized network must run on; None for no such demand.
    """

    names: dict[str, str]
    w_bits: int
    a_bits: int
    seed: int
    data: Images
    make_model: Callable[[], nnx.Module]
    recipe: Recipe
    phases: tuple[Phase, ...]
    settings: Settings
    config: dict[str, Any]
    hooks: Hooks = Hooks()
    e_bits: int | None = None
    g_bits: int | None = None
    norm: Callable[[BatchNorm], nnx.Module] | None = None
    load_teacher: Callable[[str], nnx.Module] | None = None
    target: Target | None = None

    def __post_init__(self) -> None:
        check_phases(self.phases)
        for index, phase in enumerate(self.phases):
            check_smoothing(self.settings.step.loss, self.hooks_of(index).loss, phase.name)
        if self.norm is FoldedFrozen and self.phases[0].quantized:
            raise ValueError(
                "bn=folded_frozen holds running statistics that a float phase has trained, but the "
                "first phase is quantized; choose procedure=finetune, or bn=folded_correction"
            )

    @property
    def pixels(self) -> PixelInput:
        """How uint8 pixels become the model's input."""
        return PixelInput(self.data.mean, self.data.std)

    def sample(self) -> Array:
        """A batch of training images, spread over the split, as the model's input."""
        return self.pixels.normalise(jnp.asarray(self.data.sample(SAMPLE)[0]))

    def sample_labels(self) -> Array:
        """The labels of the sample."""
        return jnp.asarray(self.data.sample(SAMPLE)[1])

    def hyperparameters(self) -> dict[str, Any]:
        """What distinguishes this run in a table of a sweep: names, bits, seed, and the plain
        values of the configuration's top level and of `SHOWN`, e.g. "optim.schedule.floor".
        """
        top = {k: v for k, v in self.config.items() if not isinstance(v, dict | list)}
        shown = {k: self.config[k] for k in SHOWN if k in self.config}
        bits = {"w_bits": self.w_bits, "a_bits": self.a_bits, "seed": self.seed}
        return {**top, **_leaves(shown), **self.names, **bits}

    def quantized(self, model: nnx.Module, index: int = -1) -> nnx.Module:
        """A float `model` under the recipe that is in force in a phase (the last, if not said)."""
        if self.norm is not None:
            model = fold_batch_norm(model, self.norm)
        recipe = self.recipe
        for phase in self.phases[: index % len(self.phases) + 1]:
            recipe = phase.recipe or recipe
        return quantize(model, recipe, self.sample(), self.seed)

    def check_target(self) -> None:
        """Raise, before any step, what the target could not run after the last.

        Raises:
            ValueError: see `Target.check`.
        """
        if self.target is not None and self.phases[-1].quantized:
            model = self.quantized(self.make_model())
            self.target.check(model, self.pixels, self.data.shape)

    def check_teachers(self) -> None:
        """Raise, before any step, what would stop a later phase at its teacher.

        Raises:
            ValueError: see `teacher`.
        """
        for index, phase in enumerate(self.phases):
            if phase.teacher is not None and phase.teacher.folder is not None:
                self.teacher(index, None)

    def hooks_of(self, index: int) -> Hooks:
        """The hooks of a phase."""
        phase = self.phases[index]
        # A later phase starts from what was trained before it.
        first = self.hooks.initialise if index == 0 else ()
        run = dataclasses.replace(self.hooks if phase.quantized else Hooks(), initialise=first)
        return run if phase.hooks is None else joined(run, phase.hooks, phase.name)

    def enter(self, model: nnx.Module, index: int) -> nnx.Module:
        """The model as a phase wants it: initialised, quantized at the first quantized phase or
        under a new recipe, then prepared; the model itself is left as it is.
        """
        hooks, phase = self.hooks_of(index), self.phases[index]
        model = nnx.clone(model)
        run_on(model, hooks.initialise, self.seed, index, when=0)
        if phase.quantized and not any(p.quantized for p in self.phases[:index]):
            model = self.quantized(model, index)
        elif phase.recipe is not None:
            model = requantize(watch(model, ()), phase.recipe, self.sample(), self.seed)
        model = watch(model, phase.watched)
        run_on(model, hooks.start, self.seed, index, when=1)
        return model

    def loop_settings(self, index: int) -> LoopSettings:
        """How a phase is carried out."""
        before, in_all = chain(self.phases, index)
        settings = self.settings
        return LoopSettings(
            batch_size=settings.batch_size,
            seed=self.seed,
            check_every=settings.check_every,
            eval_batch=settings.eval_batch,
            steps_per_call=settings.steps_per_call,
            hooks=self.hooks_of(index),
            step=settings.step,
            averaged=settings.averaged,
            epochs_before=before,
            epochs_in_all=in_all,
        )

    def teacher(self, index: int, floating: nnx.Module | None) -> nnx.Module | None:
        """The teacher of a phase, or of a later one that must not lose it.

        Args:
            index: of the phase.
            floating: the network as the last float phase left it.

        Raises:
            ValueError: a folder is named, but no way to read it, or its network knows other images.
        """
        phase = self.phases[index]
        if phase.teacher is not None and phase.teacher.folder is not None:
            if self.load_teacher is None:
                raise ValueError(
                    f"Teacher.folder is {phase.teacher.folder!r}, but RunSpec.load_teacher is not "
                    "set; give a function from a folder to its network"
                )
            return self.load_teacher(phase.teacher.folder)
        own = (p.teacher is not None and p.teacher.folder is None for p in self.phases[index:])
        return floating if phase.quantized and any(own) else None

    def references(self, model: nnx.Module) -> list[str]:
        """Citation keys of the quantizers in use."""
        bound = slots(model) | error_slots(model)
        return sorted({key for slot in bound.values() for key in slot.quantizer.references})


def _leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> number or text; what stands in a list (phases) is left out."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _leaves(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            found[f"{prefix}{key}"] = value
    return found
