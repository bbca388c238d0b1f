"""Reads thousands of damaged and hostile files of each format, and counts what becomes of them.

A worker process reads one wrong file after another: each must be refused by a `ValueError` or taken
as a program, which is then listed and, where its work is small, run once on random codes. Before
them come the files of `hostile.py`, which are sound in form. What the worker cannot survive is
counted by its parent, which starts another one behind the file that did it.

    python experiments/reliability/fuzz_files.py --files 3000
    python experiments/reliability/fuzz_files.py --files 100 --formats onnx --seed 5

Prints one line of JSON: `tried`, `refused`, `accepted`, `crashed` (the process died), `hung` (more
than 20 seconds), `errors` (any exception but `ValueError`), `memory_mib` (growth of the largest
worker), and the same by format. Exit status 1 unless the last but one are all zero. The file that
did it is kept, its path printed.
"""

from __future__ import annotations

import argparse
import json
import resource
import select
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.reliability import hostile
from experiments.reliability.mutations import changed
from qjax.export import program_of
from qjax.inspect import read, totals
from qjax.integerize import PixelInput, integerize
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.models.small import SmallCNN
from qjax.program.comparison import random_inputs
from qjax.program.formats import FORMATS, export
from qjax.program.program import Program
from qjax.program.run import run
from qjax.program.statistics import multiplications
from qjax.recipe import all_layers
from qjax.surgery import quantize

FORMS = ("program", "tflite", "onnx")
_SECONDS = 20
_WORK = 10**7
"""Products and codes of a program that is run."""
_BATCH = 500
"""Files a worker reads before the next one takes over."""


def write_sound(folder: Path) -> None:
    """A small network's file in each format."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)).astype(np.uint8)
    input = PixelInput((0.5,), (0.3,))
    act = AffineActivation(4)
    recipe = all_layers(AffineWeight(4, per_channel=True), act, act, act)
    sample = input.normalise(jnp.asarray(pixels))
    model = quantize(SmallCNN(width=4, rngs=nnx.Rngs(0)), recipe, sample)
    program = program_of(integerize(model, input, (8, 8, 1)), (8, 8, 1))
    for form in FORMS:
        export(program, form, folder / FORMATS[form].file, pixels, fill=True)


def wrong(folder: Path, form: str, seed: int) -> bytes:
    """What a wrong file holds: below zero those of `hostile.py`, else the sound one changed."""
    sound = folder / FORMATS[form].file
    if seed >= 0:
        return changed(form, sound.read_bytes(), seed)
    path = folder / f"hostile{sound.suffix}"
    hostiles(form)[seed](path)
    return path.read_bytes()


def hostiles(form: str) -> list[Callable[[Path], None]]:
    """What writes the hostile files of a format."""
    files = {**hostile.READ, **hostile.RUN}
    return [write for name, write in files.items() if name.endswith(f".{form}")]


def run_once(program: Program) -> None:
    """Run a program on random codes, unless that takes long."""
    activations = sum(tensor.elements for tensor in program.tensors if tensor.data is None)
    if multiplications(program) + activations > _WORK:
        return
    inputs = [program[name] for name in program.inputs]
    values = random_inputs()(inputs, 0, 1)
    given = {
        tensor.name: value.reshape([size or 1 for size in tensor.shape])
        for tensor, value in zip(inputs, values, strict=True)
    }
    for value in run(program, given).values():
        value.block_until_ready()


def work(folder: Path, form: str, first: int, last: int) -> None:
    """The worker: one line a file, with what became of it."""
    sound = folder / FORMATS[form].file
    path = folder / f"wrong{sound.suffix}"
    run_once(read(sound))
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(first, last):
        print(f"at {seed}", flush=True)
        path.write_bytes(wrong(folder, form, seed))
        try:
            program = read(path)
            _ = str(program), totals(program, 1)
            run_once(program)
            outcome = "accepted"
        except ValueError:
            outcome = "refused"
        except BaseException:  # every one is a defect
            traceback.print_exc()
            outcome = "errors"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
        print(f"{outcome} {grown // 1024}", flush=True)


class Parent:
    """Starts workers and counts.

    Args:
        folder: with the sound files.
        form: of the files.
    """

    def __init__(self, folder: Path, form: str) -> None:
        self.folder = folder
        self.form = form
        self.counts: Counter[str] = Counter()
        self.memory = 0

    def run(self, first: int, last: int) -> None:
        """Have the files of these seeds read."""
        while first < last:
            stop = min(first + _BATCH, last)
            command = [sys.executable, __file__, "--worker", str(self.folder), self.form]
            with subprocess.Popen(
                [*command, str(first), str(stop)], stdout=subprocess.PIPE, text=True
            ) as worker:
                first = self._follow(worker, first, stop)

    def _follow(self, worker: subprocess.Popen, first: int, stop: int) -> int:
        """Count a worker's lines; returns the seed to go on with."""
        assert worker.stdout is not None
        at = first - 1
        while at < stop - 1 or not self._settled:
            ready, _, _ = select.select([worker.stdout], [], [], 120 if at < first else _SECONDS)
            line = worker.stdout.readline() if ready else ""
            if not line and at < first:
                raise RuntimeError("the worker did not start")
            if not line:
                return self._lost(worker, "crashed" if ready else "hung", at)
            word, number = line.split()
            self._settled = word != "at"
            if word == "at":
                at = int(number)
                continue
            self.counts[word] += 1
            self.memory = max(self.memory, int(number))
            if word == "errors":
                self._keep(at)
        return stop

    _settled = True

    def _lost(self, worker: subprocess.Popen, word: str, at: int) -> int:
        worker.kill()
        self.counts[word] += 1
        self._settled = True
        self._keep(at)
        return at + 1

    def _keep(self, seed: int) -> None:
        suffix = Path(FORMATS[self.form].file).suffix
        kept = Path(tempfile.gettempdir()) / f"fuzz_{self.form}_{seed}{suffix}"
        kept.write_bytes(wrong(self.folder, self.form, seed))
        print(f"kept {kept}", file=sys.stderr)


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--files", type=int, default=3000, help="of each format")
    parser.add_argument("--formats", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--seed", type=int, default=0, help="of the first file")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        folder, form, first, last = options.worker
        work(Path(folder), form, int(first), int(last))
        return 0
    found: dict[str, dict[str, int]] = {}
    words = ("refused", "accepted", "crashed", "hung", "errors")
    with tempfile.TemporaryDirectory() as work_folder:
        write_sound(Path(work_folder))
        for form in options.formats:
            parent = Parent(Path(work_folder), form)
            parent.run(-len(hostiles(form)), 0)
            parent.run(options.seed, options.seed + options.files)
            rows = {word: parent.counts[word] for word in words}
            found[form] = {"tried": sum(rows.values()), **rows, "memory_mib": parent.memory}
    total = {word: sum(row[word] for row in found.values()) for word in ("tried", *words)}
    memory = max(row["memory_mib"] for row in found.values())
    print(json.dumps(total | {"memory_mib": memory, "by_format": found}))
    return int(total["crashed"] + total["hung"] + total["errors"] > 0)


if __name__ == "__main__":
    sys.exit(main())
