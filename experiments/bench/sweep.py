"""What it costs to train many small networks: a population against its alternatives.

    python experiments/bench/sweep.py [--epochs 2] [--images 8192] [--joblib]   on a CPU
    python experiments/bench/sweep.py --stack [--members 12] [--steps 128]     on an accelerator

Without `--stack` (the default on a CPU): PACT on LeNet-5, 12 jobs (4 widths of weights by 3 of
activations), 2 epochs of 8,192 synthetic 28x28 images in batches of 128, each job to its record:
training, evaluation after each epoch, checkpoint, the integer network and its agreement. The same
jobs are carried out

    population   by one command, `hydra/launcher=population`: one process, one compilation
    basic        by one command with Hydra's launcher: one process, a compilation for each job
    processes    by 12 commands one after another, as a shell loop would: a start of Python, the
                 imports and all compilations for each job
    joblib       (with `--joblib`) by one command whose jobs run side by side, one a core

and end in the same metrics and accuracies to the last bit, which is checked. `seconds` is by the
clock, `cpu_seconds` of all processes and threads, `peak_mib` the largest resident set of one
process. What a population saves is the time outside the steps, so that the ratios approach 1 as
jobs grow longer. Prints one JSON line: `population_over_processes`, `population_over_basic`,
`seconds`, ...

With `--stack` (the default on an accelerator): ResNet-20 under PACT W4A4 on synthetic images of
CIFAR-10's shape, batch 128. `seconds` of training steps, compilation left out, of

    one          one member
    in_turn      12 members one after another through one compiled program
    stacked      12 members together (`population.stack=true`), with the launcher's own threads

Prints one JSON line: `stacked_over_one`, `in_turn_over_one`, `seconds`, `compile_seconds`, ...
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import yaml
from hydra import compose, initialize_config_dir

from qjax.launchers.stack import Stack
from qjax.train import CONF, build
from qjax.training.loop import PhaseLoop
from qjax.training.programs import Programs

ROOT = Path(__file__).resolve().parents[2]
GRID = {"w_bits": (2, 3, 4, 8), "a_bits": (2, 4, 8)}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--stack", action="store_true", default=jax.default_backend() != "cpu")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--joblib", action="store_true")
    parser.add_argument("--members", type=int, default=12)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--depth", type=int, default=20, choices=(8, 20, 32, 56))
    options = parser.parse_args()
    line = stack_line(options) if options.stack else launcher_line(options)
    device = jax.devices()[0]
    known = {"cores": os.cpu_count(), "device": device.device_kind, "jax": jax.__version__}
    print(json.dumps(line | known))


def launcher_line(options: argparse.Namespace) -> dict[str, Any]:
    """The launchers, one after another."""
    fixed = [
        *("+experiment=pact_w4a4", "model=lenet5", "data=synthetic", "data.channels=1"),
        *("data.height=28", "data.width=28", f"data.train_size={options.images}"),
        *("data.test_size=1024", f"batch_size={options.batch}", f"epochs={options.epochs}"),
    ]
    grid = [f"{key}={','.join(map(str, values))}" for key, values in GRID.items()]
    jobs = [[f"w_bits={w}", f"a_bits={a}"] for w in GRID["w_bits"] for a in GRID["a_bits"]]
    ways = {
        "population": [["-m", *fixed, *grid, "hydra/launcher=population"]],
        "basic": [["-m", *fixed, *grid]],
        "processes": [[*fixed, *job] for job in jobs],
    }
    if options.joblib:
        ways["joblib"] = [["-m", *fixed, *grid, "hydra/launcher=joblib"]]
    with tempfile.TemporaryDirectory() as work:
        costs = {name: cost(Path(work) / name, commands) for name, commands in ways.items()}
        found = {name: results(Path(work) / name) for name in ways}
    if len(found["basic"]) != len(jobs) or any(way != found["basic"] for way in found.values()):
        raise SystemExit(f"the ways differ in their results: {found}")
    seconds = {name: one["seconds"] for name, one in costs.items()}
    ratios = {
        f"population_over_{name}": round(seconds["population"] / seconds[name], 3)
        for name in seconds
        if name != "population"
    }
    steps = options.epochs * (options.images // options.batch)
    fields = ("seconds", "cpu_seconds", "peak_mib")
    by_field = {field: {name: one[field] for name, one in costs.items()} for field in fields}
    return {**ratios, **by_field, "jobs": len(jobs), "steps_per_job": steps}


def cost(folder: Path, commands: list[list[str]]) -> dict[str, float]:
    """Time and memory of training commands, one after another."""
    folder.mkdir()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    begin, cpu, peak = time.perf_counter(), 0.0, 0
    for words in commands:
        with (folder / "output.txt").open("a") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "qjax.train", *words],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            # Processes that the child waited for are counted with it.
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit((folder / "output.txt").read_text())
        cpu += usage.ru_utime + usage.ru_stime
        peak = max(peak, usage.ru_maxrss)
    seconds = time.perf_counter() - begin
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_mib": round(peak / 1024),
    }


def results(folder: Path) -> dict[str, Any]:
    """What every job came to, by its bits; metrics to the last bit."""
    found = {}
    for path in folder.rglob("result.json"):
        config = yaml.safe_load((path.parent / "config.yaml").read_text())
        accuracy = json.loads(path.read_text())["accuracy"]
        metrics = (path.parent / "metrics.jsonl").read_text()
        found[f"w{config['w_bits']}a{config['a_bits']}"] = accuracy, hash(metrics)
    return found


def stack_line(options: argparse.Namespace) -> dict[str, Any]:
    """Members of one network on this process's device."""
    programs, stack = Programs(), Stack(options.members)
    one, *others = loops(options, options.members, programs)
    calls = max(1, options.steps // one.steps_per_call)
    compiling, seconds = {}, {}
    compiling["one"] = timed(lambda: trained(one, 1))
    seconds["one"] = timed(lambda: trained(one, calls))
    seconds["in_turn"] = timed(lambda: [trained(member, calls) for member in (one, *others)])
    together = loops(options, options.members, stack.programs)

    def stacked(count: int) -> None:
        stack.run([lambda member=member: trained(member, count) for member in together])

    compiling["stacked"] = timed(lambda: stacked(1))
    seconds["stacked"] = timed(lambda: stacked(calls))
    assert stack.taken == 1 + calls, "every step is taken by all members together"
    memory = jax.devices()[0].memory_stats() or {}
    return {
        "stacked_over_one": round(seconds["stacked"] / seconds["one"], 3),
        "in_turn_over_one": round(seconds["in_turn"] / seconds["one"], 3),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "compile_seconds": {name: round(value, 1) for name, value in compiling.items()},
        "peak_device_mib": round(memory.get("peak_bytes_in_use", 0) / 2**20) or None,
        "members": options.members,
        "steps": calls * one.steps_per_call,
        "steps_per_call": one.steps_per_call,
        "batch": options.batch,
    }


def loops(options: argparse.Namespace, count: int, programs: Programs) -> list[PhaseLoop]:
    """Members that differ in their seed, at the start of training."""
    words = [
        *("+experiment=pact_w4a4", "data=synthetic", f"model=resnet{options.depth}"),
        *("data.height=32", "data.width=32", "data.channels=3", "data.augmentation.pad=4"),
        *("data.augmentation.flip=true", f"data.train_size={64 * options.batch}"),
        *(f"batch_size={options.batch}", "epochs=1000"),
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        configs = [compose("config", [*words, f"seed={seed}"]) for seed in range(count)]
    specs = [build(config, programs) for config in configs]
    # One start for all: where training starts does not change what a step costs.
    model = specs[0].enter(specs[0].make_model(), 0)
    return [
        PhaseLoop(model, one.phases[0], one.data, one.loop_settings(0), programs=programs)
        for one in specs
    ]


def trained(loop: PhaseLoop, calls: int) -> None:
    """Let a member train on from where it stands, and wait for the device."""
    first = loop.steps_done
    for batch in loop.calls(first, first + calls * loop.steps_per_call):
        loop.state, _ = loop.call(loop.state, batch)
    jax.block_until_ready(loop.state)


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
