"""Kills a process that saves checkpoints, again and again, and checks what is left each time.

A child resumes from the newest checkpoint, checks every array bit for bit, and saves one checkpoint
after another until it is killed with SIGKILL at a random moment. It reports each step once `save`
has returned. The check: no reported step is ever lost, nothing restored is damaged or mixed from
two steps, and no checkpoint has to be set aside.

    python experiments/reliability/kill_checkpoint.py --kills 50

Prints one line of JSON: the number of kills, of those in the middle of a write, and of checkpoints
saved. Exit status 1 and a message if a check fails. Linux and macOS (it forks, before JAX starts
its threads, to spare the imports).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint  # noqa: F401  imported once here, not in each child

from qjax.training import checkpoint


def tree(step: int, elements: int) -> dict[str, Any]:
    """Arrays that only this step has."""
    rng = np.random.default_rng(step)
    big = rng.integers(0, 256, elements, dtype=np.uint8)
    return {"step": np.asarray(step), "big": big, "bits": rng.integers(-9, 9, (8, 3, 3))}


def child(folder: Path, reported: int, elements: int, pipe: int) -> None:
    """Resumes, checks, and saves until killed; writes each durable step to the pipe."""
    warnings.simplefilter("error")
    found = checkpoint.restore_latest(folder)
    step = -1
    if found is not None:
        arrays, metadata = found
        step = metadata["step"]
        for name, expected in tree(step, elements).items():
            if arrays[name].tobytes() != expected.tobytes():
                raise AssertionError(f"{name} of step {step} has other bits than were saved")
    if step < reported:
        raise AssertionError(f"step {reported} was reported as saved, restored is {step}")
    # Start-up costs belong before the clock: most kills shall meet a process that saves.
    checkpoint.save(folder.with_name("warm"), 0, tree(0, 1), {})
    os.write(pipe, b"ready\n")
    while True:
        step += 1
        checkpoint.save(folder, step, tree(step, elements), {"step": step})
        os.write(pipe, f"{step}\n".encode())


def start(folder: Path, reported: int, elements: int) -> tuple[int, int]:
    """Forks a child; returns its process id and the reading end of its pipe."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    try:
        os.close(reading)
        child(folder, reported, elements, writing)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def kill(pid: int, pipe: int, saves: int, pause: float) -> tuple[list[int], float]:
    """Waits for the child's checks and for some saves, and kills it during the next one.

    Args:
        pid: of the child.
        pipe: what it reports to.
        saves: how many to wait for.
        pause: seconds from the last of them to the kill.

    Returns:
        The steps that the child reported as saved, and the seconds that one took (0: unknown).
    """
    lines = os.fdopen(pipe, "rb", buffering=0)
    if lines.readline() != b"ready\n":
        os.waitpid(pid, 0)
        sys.exit("the check of a restored checkpoint failed (see above)")
    began = time.monotonic()
    reported = [lines.readline() for _ in range(saves)]
    seconds = (time.monotonic() - began) / saves if saves else 0.0
    time.sleep(pause)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status):
        sys.exit("the saving process ended by itself (see above)")
    reported += lines.readlines()
    lines.close()
    return [int(line) for line in reported], seconds


def main() -> None:
    """Runs the kills and prints the outcome."""
    parser = argparse.ArgumentParser(description="Kill a saving process, again and again.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--elements", type=int, default=200_000, help="bytes of the big array")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    reported, saved, inside, typical = -1, 0, 0, 0.1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "checkpoints"
        for _ in range(options.kills):
            pid, pipe = start(folder, reported, options.elements)
            # The pause follows the speed of this machine, so that kills fall anywhere in a save.
            steps, seconds = kill(pid, pipe, rng.randrange(3), rng.uniform(0, 1.2 * typical))
            typical = seconds or typical
            saved += len(steps)
            reported = steps[-1] if steps else reported
            inside += any(folder.glob(".writing_*"))
        pid, pipe = start(folder, reported, options.elements)
        kill(pid, pipe, saves=0, pause=0.0)  # the last kill's outcome is checked too
        present = [path.name for path in checkpoint.checkpoints(folder)]
    outcome = {"kills": options.kills, "inside_a_write": inside, "saved": saved, "left": present}
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
