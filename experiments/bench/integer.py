"""Images a second of integer networks, beside their own float32 form and other runtimes.

    python experiments/bench/integer.py [--peers] [--rounds 25] [--threads 2] [--evaluate 10000]

ResNet-8 and ResNet-20 on 32x32 images with 8 bits everywhere, compiled by XLA: pixels in, class
out. All candidates of a batch size run in turn in one process on the same cores, so that a busy
machine slows all alike; each figure is the median over the rounds. `--peers` writes the same
network as .tflite and ONNX files, and runs them with LiteRT (its default, XNNPACK) and onnxruntime.

Prints one JSON line. `over_float`, `over_litert` and `over_onnxruntime` are ours over theirs in
images a second, ResNet-8 at batch 64; `images_per_second` has the rest by network, batch and
candidate; `per_batch` says how ours grows with the batch. `--evaluate N` adds the time and the
growth of the resident memory of an evaluation over N images, and over a tenth of them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

Call = Callable[[], object]
BATCHES = (64, 1)
GROWTH = (16, 32, 64, 128, 256)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", action="store_true", help="also LiteRT and onnxruntime")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2, help="cores for every candidate")
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 20])
    parser.add_argument("--evaluate", type=int, default=0, help="images of an evaluation")
    options = parser.parse_args()
    # Before JAX counts them: its thread pool has as many threads as the process may use cores.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    print(json.dumps(measured(options)))


def measured(options: argparse.Namespace) -> dict[str, object]:
    """The line."""
    import jax
    from integer_networks import Network  # beside this file

    networks = {f"resnet{depth}": Network(depth) for depth in options.depths}
    rates: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, network in networks.items():
            files = network.export(Path(folder)) if options.peers else {}
            for batch in BATCHES:
                calls = network.calls(batch) | network.peers(files, batch, options.threads)
                rates[f"{name}_b{batch}"] = alternate(calls, batch, options.rounds)
    first = networks[f"resnet{options.depths[0]}"]
    growing = {str(batch): first.calls(batch)["integer"] for batch in GROWTH}
    line: dict[str, object] = {}
    usual = rates[f"resnet{options.depths[0]}_b64"]
    for peer, key in (("float32", "float"), ("litert", "litert"), ("onnxruntime", "onnxruntime")):
        if peer in usual:
            line[f"over_{key}"] = round(usual["integer"] / usual[peer], 3)
    line["images_per_second"] = {
        name: {candidate: round(rate) for candidate, rate in row.items()}
        for name, row in rates.items()
    }
    line["per_batch"] = {
        batch: round(alternate({"integer": call}, int(batch), options.rounds)["integer"])
        for batch, call in growing.items()
    }
    if options.evaluate:
        line["evaluation"] = [
            evaluated(first, count) for count in (options.evaluate // 10, options.evaluate)
        ]
    device = jax.devices()[0].device_kind
    return line | {"rounds": options.rounds, "threads": options.threads, "device": device}


def alternate(calls: dict[str, Call], batch: int, rounds: int) -> dict[str, float]:
    """Images a second of each candidate, from medians over alternating rounds."""
    repeats = max(1, 16 // batch)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 2):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(repeats):
                call()
            # Two turns to warm up.
            if turn >= 2:
                times[name].append((time.perf_counter() - begin) / repeats)
    return {name: batch / statistics.median(values) for name, values in times.items()}


def evaluated(network, count: int) -> dict[str, float]:
    """Seconds of an evaluation in batches, and megabytes by which the process grew."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    network.evaluate(count)
    seconds = time.perf_counter() - begin
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"images": count, "seconds": round(seconds, 2), "grown_mb": round(grown, 1)}


if __name__ == "__main__":
    main()
