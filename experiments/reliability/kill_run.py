"""Kills a training run, again and again, and compares what it ends with to an uninterrupted run.

    python experiments/reliability/kill_run.py --kills 50

One run of the embedded digits (float activations, then quantized ones, then frozen ranges, three
phases under one schedule) is trained without interruption. Then the same command is started, killed
with SIGKILL at a random moment, and started again, until it has been killed so many times; a run
that finishes before is compared and begun anew. The last one finishes undisturbed. Compared bit by
bit: every array of the last checkpoint, `metrics.jsonl`, `layers.json`, and `result.json` without
seconds and time.

Prints one line of JSON: kills, of those inside a checkpoint write (a half-written folder was left),
before the first checkpoint, and after training; runs finished; and whether all were equal. Exit
status 1 if one was not. Linux and macOS.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from qjax.training import checkpoint

WORDS = (
    "+experiment=minmax_w8a8",
    "procedure=delayed",
    "bn=folded_correction",
    "model.width=4",
    "data.train_limit=256",
    "data.test_limit=64",
    "average_decay=0.9",
    "run.progress=false",
)
TIMED = ("seconds", "finished")


def start(folder: Path, epochs: int, cache: Path, log: Path) -> subprocess.Popen[bytes]:
    """The run's process; compiled programs are kept between its lives to spare time."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "qjax.train", *WORDS, f"epochs={epochs}"]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*command, f"run.folder={folder}"], env=environment, stdout=output, stderr=output
        )


def finish(process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits for a run that nobody kills."""
    if process.wait() != 0:
        sys.exit(f"a run failed:\n{log.read_text()[-4000:]}")


def outcome(folder: Path) -> dict[str, Any]:
    """Everything of a finished run that must not depend on its interruptions."""
    result = json.loads((folder / "result.json").read_bytes())
    newest = checkpoint.checkpoints(folder / "checkpoints")[-1]
    arrays = checkpoint.load_arrays(newest)
    return {
        "result": {key: value for key, value in result.items() if key not in TIMED},
        "metrics": (folder / "metrics.jsonl").read_bytes(),
        "layers": (folder / "layers.json").read_bytes(),
        "arrays": {name: (str(a.dtype), a.shape, a.tobytes()) for name, a in arrays.items()},
    }


def differences(one: dict[str, Any], two: dict[str, Any]) -> list[str]:
    """Names of the parts that differ."""
    return [name for name in one if one[name] != two[name]]


def kill_once(process: subprocess.Popen[bytes], folder: Path, seconds: float) -> str | None:
    """Kills a process after so many seconds; where it was, or None if it had finished."""
    try:
        process.wait(seconds)
        return None
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    saved = folder / "checkpoints"
    if any(saved.glob(".writing_*")):
        return "inside_a_write"
    if not checkpoint.checkpoints(saved):
        return "before_the_first"
    return "while_training"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Kill a training run, again and again.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    where: Counter[str] = Counter()
    unequal: list[str] = []
    finished = 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        cache, log = root / "programs", root / "log"
        # The first run fills the store of compiled programs; the second says how long a life is.
        for whole in ("first", "whole"):
            began = time.monotonic()
            finish(start(root / whole, options.epochs, cache, log), log)
            seconds = time.monotonic() - began
        expected = outcome(root / "whole")
        unequal += differences(outcome(root / "first"), expected)
        folder = root / "killed"
        while where.total() < options.kills:
            process = start(folder, options.epochs, cache, log)
            place = kill_once(process, folder, rng.uniform(0, seconds))
            if place is not None:
                where[place] += 1
                continue
            finish(process, log)
            unequal += differences(outcome(folder), expected)
            finished += 1
            shutil.rmtree(folder)
        finish(start(folder, options.epochs, cache, log), log)
        unequal += differences(outcome(folder), expected)
        finished += 1
    kills = where.total()
    print(json.dumps({"kills": kills, **where, "finished": finished, "unequal": unequal}))
    sys.exit(1 if unequal else 0)


if __name__ == "__main__":
    main()
