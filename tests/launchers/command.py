"""The training command as a person gives it, inside a test or in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from qjax.launchers.jobs import Job, read_jobs
from qjax.train import main
from tests.training.folders import ROOT

TINY = [
    "data=synthetic",
    "data.height=8",
    "data.width=8",
    "data.channels=1",
    "data.train_size=96",
    "data.test_size=32",
    "model.width=4",
    "batch_size=32",
    "epochs=1",
    "optim.weight_decay=0.01",
]
"""A run of three steps on synthetic images."""


def command(patch: pytest.MonkeyPatch, folder: Path, *words: str) -> int:
    """Exit code of the command in this process, with `folder` for the working directory."""
    patch.chdir(folder)
    patch.setattr(sys, "argv", ["train", *words])
    GlobalHydra.instance().clear()
    try:
        main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def command_outside(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "qjax.train", *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=1200,
    )


def environment() -> dict[str, str]:
    """Of a process that imports this checkout, wherever it works."""
    return os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}


def jobs_in(folder: Path) -> list[Job]:
    """The jobs of the latest sweep that was started in a folder."""
    sweeps = sorted((folder / "runs" / "sweeps").iterdir(), key=lambda path: path.stat().st_mtime)
    return read_jobs(sweeps[-1])
