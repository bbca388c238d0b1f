"""Carries out many runs side by side, one processor core each, until a deadline.

    python experiments/run_batch.py experiments/one_recipe/jobs.txt --workers 8
    python experiments/run_batch.py FILE [FILE ...] --list             what it would run
    python experiments/run_batch.py FILE --minutes 90 --out records.tar.gz

For a machine with many cores and small networks: one run that spreads over 16 cores is slower than
16 runs that keep to their own. A job file has one line for each set of runs, `GROUP: OVERRIDE ...`,
the overrides being those of `python -m qjax.train`; commas sweep as with `-m`, and `#` begins a
comment:

    wage:  +experiment=wage_2888 epochs=10 seed=0,1,2
    bits:  +experiment=pact_w4a4 w_bits=2,3,4,8 a_bits=${w_bits} seed=0,1,2

Groups start in the order in which they first appear, the runs of a line in the order of the sweep.
A worker stays with its line while that has runs left, for they share its compiled functions;
workers share what XLA compiled through a cache on disk. A finished run is skipped when the command
is given again, and a killed one goes on from its last checkpoint. Records go where `qjax.train`
puts them, under `runs/` of the current folder; `--out` packs those of this batch, without
checkpoints and events.

`--gpu-workers N --gpu-groups A,B` adds workers that share the accelerator and take these groups
first; a run that fails there is tried again on a core.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from batch_jobs import Job, choose, pack, read_jobs

ROOT = Path(__file__).resolve().parents[1]
WORKER = ROOT / "experiments" / "batch_worker.py"


class Batch:
    """Workers, the jobs they share, and the deadline."""

    def __init__(self, jobs: list[Job], options: argparse.Namespace) -> None:
        self.jobs, self.options = jobs, options
        self.began = time.monotonic()
        self.closed = False
        self.lock = threading.Lock()
        self.processes: dict[int, subprocess.Popen[str]] = {}

    def run(self) -> None:
        """Returns when all jobs are done, or at the deadline, with no worker left."""
        options = self.options
        kinds = [False] * options.workers + [True] * options.gpu_workers
        cores = sorted(os.sched_getaffinity(0))
        left = cores[options.workers :] or cores
        threads = []
        for number, on_gpu in enumerate(kinds):
            own = left if on_gpu else [cores[number % len(cores)]]
            work = partial(self._serve, number, ",".join(map(str, own)), on_gpu)
            threads.append(threading.Thread(target=work, daemon=True))
        for thread in threads:
            thread.start()
        try:
            self._join(threads, options.minutes * 60)
            self.closed = True
            self._join(threads, options.minutes * 60 + options.grace)
        except KeyboardInterrupt:
            say(self, "interrupted")
        self.closed = True
        for process in list(self.processes.values()):
            process.kill()
        for thread in threads:
            thread.join(timeout=10)

    def _join(self, threads: Sequence[threading.Thread], until: float) -> None:
        for thread in threads:
            thread.join(timeout=max(0.0, self.began + until - time.monotonic()))

    def _serve(self, number: int, cores: str, on_gpu: bool) -> None:
        """Feeds one worker process, and starts another where one died, while there is work."""
        line = None
        while (job := self._next(line, on_gpu)) is not None:
            process = self.processes.get(number)
            if process is None or process.poll() is not None:
                process = self.processes[number] = self._start(number, cores, on_gpu)
            line = job.line
            job.answer = _ask(process, job) or {"error": "the worker died; see its log"}
            with self.lock:
                self._close(job, on_gpu)
        if (process := self.processes.get(number)) is not None and process.stdin is not None:
            process.stdin.close()
            process.wait()

    def _next(self, line: int | None, on_gpu: bool) -> Job | None:
        with self.lock:
            job = None if self.closed else choose(self.jobs, line, self.options.gpu_groups, on_gpu)
            if job is not None:
                job.state = "running"
            return job

    def _close(self, job: Job, on_gpu: bool) -> None:
        error = job.answer.get("error")
        if error is None:
            job.state = "done"
            seconds = job.answer["seconds"]
            text = f"{100 * job.answer['accuracy']:.2f} %, {seconds:.0f} s"
        elif self.closed and "died" in error:
            job.state, text = "waiting", "stopped"
        elif on_gpu:
            job.state, job.needs_core, text = "waiting", True, f"to a core, after {error}"
        else:
            job.state, text = "failed", f"FAILED: {error}"
        say(self, f"{job.group}: {job.label}: {text}")

    def _start(self, number: int, cores: str, on_gpu: bool) -> subprocess.Popen[str]:
        options = self.options
        log = options.logs / f"worker-{number}.log"
        command = [sys.executable, str(WORKER), cores]
        environment = worker_environment(options.cache, on_gpu, options.gpu_workers)
        with log.open("a", encoding="utf-8") as file:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=environment,
                text=True,
            )


def worker_environment(cache: Path, on_gpu: bool, gpu_workers: int) -> dict[str, str]:
    """The environment of a worker on a core, or on its share of the accelerator."""
    wanted = {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "OMP_NUM_THREADS": "1",
        # Else every step maps its buffers anew: a third of the time went into page faults.
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_TRIM_THRESHOLD_": str(2**32),
        "MALLOC_TOP_PAD_": str(2**27),
    }
    if on_gpu:
        wanted["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.4 / gpu_workers:.3f}"
    else:
        flags = os.environ.get("XLA_FLAGS", "")
        wanted |= {"JAX_PLATFORMS": "cpu"}
        wanted["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    return {**os.environ, **wanted}


def _ask(process: subprocess.Popen[str], job: Job) -> dict[str, Any] | None:
    """The worker's answer; None where it died."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps({"line": job.line, "overrides": job.overrides}) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    except OSError:
        return None
    return json.loads(answer) if answer.endswith("\n") else None


def say(batch: Batch, text: str) -> None:
    """A line of progress: minutes, how many jobs are where, and the text."""
    states = [job.state for job in batch.jobs]
    counts = ", ".join(f"{states.count(s)} {s}" for s in ("done", "failed", "running", "waiting"))
    minutes = (time.monotonic() - batch.began) / 60
    sys.stdout.write(f"[{minutes:5.1f} min: {counts}] {text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code: 0 where every run is finished, else 1, and 2 for a
    wrong argument.
    """
    options = _options(arguments)
    try:
        jobs = read_jobs(options.files, options.set)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if options.groups is not None:
        jobs = [job for job in jobs if job.group in options.groups]
    if options.list:
        sys.stdout.writelines(f"{job.group}: {' '.join(job.overrides)}\n" for job in jobs)
        return 0
    for folder in (options.logs, options.cache):
        folder.mkdir(parents=True, exist_ok=True)
    batch = Batch(jobs, options)
    say(
        batch,
        f"{len(jobs)} jobs, {options.workers} cores, {options.gpu_workers} on the accelerator",
    )
    batch.run()
    return report(batch)


def report(batch: Batch) -> int:
    """Says how the batch ended and packs its records; the exit code."""
    say(batch, "the end")
    for job in batch.jobs:
        if job.state != "done" and "error" in job.answer:
            sys.stdout.write(f"failed: {' '.join(job.overrides)}: {job.answer['error']}\n")
    options = batch.options
    if options.out is not None:
        folders = [Path(job.answer["folder"]) for job in batch.jobs if job.state == "done"]
        size, whole = pack(folders, options.out, int(options.limit * 2**20))
        curves = "" if whole else ", without the curves (metrics.jsonl), which would pass --limit"
        sys.stdout.write(f"{options.out}: {len(folders)} records, {size:,} bytes{curves}\n")
    return int(any(job.state != "done" for job in batch.jobs))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("files", nargs="+", type=Path, help="job files, the most urgent first")
    add("--workers", type=int, default=len(os.sched_getaffinity(0)), help="default: every core")
    add("--gpu-workers", type=int, default=0)
    add("--gpu-groups", type=_words, default=[], metavar="A,B")
    add("--groups", type=_words, metavar="A,B", help="these groups only")
    add(
        "--set",
        action="append",
        default=[],
        metavar="GROUP:OVERRIDE",
        help="add to a group's lines",
    )
    add("--minutes", type=float, default=24 * 60.0, help="after them no run starts")
    add("--grace", type=float, default=30.0, help="seconds after that until workers are stopped")
    add("--cache", type=Path, default=Path("runs/batch/compiled"), help="of XLA's compilations")
    add("--logs", type=Path, default=Path("runs/batch"), help="folder of the workers' logs")
    add("--out", type=Path, help="a .tar.gz of the records")
    add("--limit", type=float, default=16.0, help="MiB that --out may take")
    add("--list", action="store_true", help="print the runs and stop")
    options = parser.parse_args(arguments)
    options.cache = options.cache.absolute()
    if min(options.workers, options.gpu_workers) < 0 or options.workers + options.gpu_workers < 1:
        parser.error("--workers and --gpu-workers must be at least 0, and not both 0")
    return options


def _words(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
