"""A program of its own: a small run on several devices, in one process or in several.

`python -m tests.training.sharded WORK FOLDER DEVICES`; with JAX_NUM_PROCESSES in the environment it
joins the others first. WORK is `run` (begin a record in FOLDER or go on with it), `half` (stop
after the first checkpoint), `steps` (one phase, its state in FOLDER) or `files` (train on the
images below FOLDER).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from pathlib import Path

import numpy as np
from flax import nnx

from qjax.core.requantize import q31_even
from qjax.data.imagefolder import load
from qjax.data.pipeline import Crops
from qjax.models.small import SmallCNN
from qjax.training import checkpoint
from qjax.training.devices import connect, disconnect, find_devices, first_process
from qjax.training.loop import LoopSettings, PhaseLoop
from qjax.training.optimizers import Sgd
from qjax.training.phases import Phase
from qjax.training.planned import Planned
from qjax.training.spec import RunSpec, Settings
from qjax.training.step import StepSettings
from tests.training.noisy import StochasticWeight
from tests.training.small import DATA, Recipe, Rule, rules, spec

PHASES = (
    Phase("float", 2, Sgd(0.1), quantized=False),
    Phase("quantized", 2, Sgd(0.1), continues=True),
)


def small_run(devices: int | str) -> RunSpec:
    """Two phases of two epochs of seven steps, up to four in a call, with noise and an average."""
    base = spec(
        *PHASES,
        data=DATA.limit(train=28, test=14),
        recipe=Recipe((Rule("conv", weight=StochasticWeight()), *rules())),
    )
    settings = Settings(
        batch_size=4,
        policy=q31_even,
        policy_name="q31_even",
        eval_batch=6,
        devices=devices,
        steps_per_call=4,
        step=StepSettings(average_decay=0.9),
        progress=False,
    )
    return dataclasses.replace(base, settings=settings)


def steps(folder: Path, devices: int | str) -> None:
    """Train the quantized phase alone, and save its state as a checkpoint."""
    made = dataclasses.replace(small_run(devices), phases=(Phase("quantized", 2, Sgd(0.1)),))
    settings = dataclasses.replace(made.loop_settings(0), devices=find_devices(devices, 4))
    model = made.enter(made.make_model(), 0)
    loop = PhaseLoop(model, made.phases[0], made.data, settings)
    epochs = [[epoch.loss, epoch.train_accuracy, epoch.test_accuracy] for epoch in loop.epochs()]
    checkpoint.save(folder, loop.steps_done, loop.state, {"epochs": epochs})


def half(folder: Path, devices: int | str) -> None:
    """Begin the run, and stop after its first checkpoint."""
    save = checkpoint.save

    def once(*arguments) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    checkpoint.save = once  # pyright: ignore[reportAttributeAccessIssue]
    with contextlib.suppress(KeyboardInterrupt):
        Planned(small_run(devices), folder).carry_out()


def run(folder: Path, devices: int | str) -> None:
    """Begin the run, or go on with it, to its end."""
    Planned(small_run(devices), folder).carry_out()


def files(folder: Path, devices: int | str) -> None:
    """Train on image files, and save what came out beside them."""
    data = load(str(folder), crops=Crops(size=8, resize=10))
    model = SmallCNN(3, data.classes, width=2, rngs=nnx.Rngs(0))
    settings = LoopSettings(4, seed=1, eval_batch=6, devices=find_devices(devices, 4))
    phase = Phase("float", 2, Sgd(0.05), quantized=False)
    made = PhaseLoop(model, phase, data, settings)
    epochs = [[epoch.loss, epoch.train_accuracy, epoch.test_accuracy] for epoch in made.epochs()]
    kernels = made.model().classifier.kernel[...]  # pyright: ignore[reportAttributeAccessIssue]
    if first_process():
        np.savez(folder / "found.npz", epochs=np.array(epochs), kernels=np.asarray(kernels))


def main(work: str, folder: Path, devices: int | str) -> None:
    """Entry point."""
    if "JAX_NUM_PROCESSES" in os.environ:
        connect()
    works = {"steps": steps, "half": half, "run": run, "files": files}
    works[work](folder, devices)
    disconnect()


if __name__ == "__main__":
    found = sys.argv[3]
    main(sys.argv[1], Path(sys.argv[2]), int(found) if found.isdecimal() else found)
