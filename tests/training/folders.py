"""Small checkpoints and whole runs, and how to compare them bit for bit."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qjax.record import read
from qjax.training.checkpoint import checkpoints, load_arrays, save
from qjax.training.run import CHECKPOINTS

ROOT = Path(__file__).parents[2]


def small(step: int) -> dict[str, Any]:
    return {"w": jnp.arange(6, dtype=jnp.float32).reshape(2, 3) + step, "n": jnp.int32(step)}


def save_steps(folder: Path, *steps: int, keep: int = 2) -> None:
    for step in steps:
        save(folder, step, small(step), {"step": step}, keep=keep)


def names(folder: Path) -> list[str]:
    return [path.name for path in checkpoints(folder)]


def assert_same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert type(a) is type(b)
        if isinstance(b, jax.Array) and jnp.issubdtype(b.dtype, jax.dtypes.prng_key):
            assert a.dtype == b.dtype
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def assert_same_run(folder: Path, expected: Path) -> None:
    """Equal weights, metrics, layers and results, whenever they were made."""
    for name in ("metrics.jsonl", "histograms.json", "layers.json", "config.yaml"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    one, two = (dataclasses.asdict(read(path)) for path in (folder, expected))
    for timed in ("seconds", "finished", "commit"):
        del one[timed], two[timed]
    assert one == two
    arrays = [load_arrays(checkpoints(path / CHECKPOINTS)[-1]) for path in (folder, expected)]
    assert arrays[0].keys() == arrays[1].keys()
    for name, array in arrays[0].items():
        assert array.tobytes() == arrays[1][name].tobytes(), name


def run_python(*arguments: str, **environment: str) -> str:
    finished = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout
