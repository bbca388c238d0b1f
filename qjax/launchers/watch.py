"""What a person sees of a sweep: each job as it begins and ends, how much is left, and at the end
what failed.

    sweep of 12 jobs in runs/sweeps/2026-01-31_12-00-00
    [ 3/12] begins   w_bits=2 a_bits=4 seed=0
    [ 3/12] done     w_bits=2 a_bits=4 seed=0   93.10 %   12 s   (3 done, 9 left, ETA 1 min 48 s)
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from qjax.launchers.jobs import Job, read_jobs
from qjax.training.console import duration

SWEEP = "sweep.json"


class Watch(Callback):
    """Hydra's callback for every launcher alike: the state of the jobs is read from their files."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Say how many jobs there are and where they are kept."""
        del kwargs
        sweep, total = Path(config.hydra.sweep.dir), count_jobs(config)
        sweep.mkdir(parents=True, exist_ok=True)
        known = {"jobs": total, "varied": list(swept(config)), "began": time.time()}
        (sweep / SWEEP).write_text(json.dumps(known) + "\n", encoding="utf-8")
        _say(f"sweep of {total or 'so many'} jobs in {sweep}")

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Say which job begins."""
        del kwargs
        if is_sweep(config):
            known = _sweep(config)
            words = short(config.hydra.overrides.task, known["varied"])
            _say(f"{_place(config, known)} begins   {words}")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Say how it ended and what is left."""
        del job_return, kwargs
        if is_sweep(config):
            known, jobs = _sweep(config), read_jobs(Path(config.hydra.sweep.dir))
            (job,) = (job for job in jobs if job.number == config.hydra.job.num)
            left = standing(jobs, known["jobs"], time.time() - known["began"])
            _say(f"{_place(config, known)} {ending(job, known['varied'])}   ({left})")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Tell what failed and why.

        Raises:
            SystemExit: with code 1 where a job failed.
        """
        del kwargs
        sweep = Path(config.hydra.sweep.dir)
        jobs = read_jobs(sweep)
        _say(report(jobs))
        if any(job.state != "done" and job.state != "skipped" for job in jobs):
            _say(f"traces: {sweep / 'jobs'}; started again, the same command runs what failed")
            raise SystemExit(1)


def is_sweep(config: DictConfig) -> bool:
    """Whether a job's configuration belongs to a sweep."""
    return OmegaConf.select(config, "hydra.job.num") is not None


def swept(config: DictConfig) -> dict[str, int | None]:
    """What a sweep varies: key -> number of values, None where a sweeper draws them.

    Args:
        config: of the multirun, Hydra's part included.
    """
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    words += list(config.hydra.overrides.task)
    found: dict[str, int | None] = {}
    for override in OverridesParser.create().parse_overrides(words):
        key = override.get_key_element()
        # A single value on the command line replaces the several of a named sweep.
        found.pop(key, None)
        if override.is_discrete_sweep():
            found[key] = len(list(override.sweep_string_iterator()))
        elif override.is_sweep_override():
            found[key] = None
    return found


def count_jobs(config: DictConfig) -> int | None:
    """How many jobs a sweep will have; None where its sweeper does not say beforehand.

    Args:
        config: of the multirun, Hydra's part included.
    """
    if (trials := config.hydra.sweeper.get("n_trials")) is not None:
        return int(trials)
    counts = [count for count in swept(config).values() if count is not None]
    is_grid = str(config.hydra.sweeper._target_).endswith(".BasicSweeper")
    return math.prod(counts) if is_grid else None


def short(words: Sequence[str], keys: Collection[str]) -> str:
    """Of a job's overrides those that the sweep varies; all of them where it varies none."""
    varied = [word for word in words if word.split("=")[0] in keys]
    return " ".join(varied or words)


def ending(job: Job, varied: Collection[str]) -> str:
    """How a job ended, in a line."""
    words = short(job.overrides, varied)
    if job.state == "failed":
        return f"failed   {words}   {job.error}"
    how = "finished before" if job.state == "skipped" else duration(job.seconds)
    share = "-" if job.accuracy is None else f"{100 * job.accuracy:.2f} %"
    return f"{job.state:8} {words}   {share}   {how}"


def standing(jobs: list[Job], total: int | None, seconds: float) -> str:
    """What is done and what is left.

    Args:
        jobs: that have begun.
        total: how many there will be; None for unknown.
        seconds: since the sweep began.
    """
    states = [job.state for job in jobs]
    parts = [
        f"{states.count(state)} {state}"
        for state in ("done", "skipped", "failed", "running")
        if state in states
    ]
    if total is not None:
        parts.append(f"{total - len(states)} waiting")
        worked = states.count("done") + states.count("failed")
        unfinished = total - len(states) + states.count("running")
        if unfinished and worked:
            parts.append(f"ETA {duration(seconds / worked * unfinished)}")
    return ", ".join(parts)


def report(jobs: list[Job]) -> str:
    """The end of a sweep: counts, then every job that failed or never ended, with its error."""
    lines = [f"sweep: {standing(jobs, None, 0.0) or 'no job began'}"]
    for job in jobs:
        words = " ".join(job.overrides)
        if job.state == "failed":
            lines += [f"  failed  {words}", f"          {job.error}"]
        elif job.state == "running":
            lines += [f"  lost    {words}", "          its process ended before the job did"]
    return "\n".join(lines)


def _sweep(config: DictConfig) -> dict[str, Any]:
    """What was known when the sweep began."""
    path = Path(config.hydra.sweep.dir) / SWEEP
    return json.loads(path.read_text(encoding="utf-8"))


def _place(config: DictConfig, known: dict[str, Any]) -> str:
    number, total = config.hydra.job.num + 1, known["jobs"]
    return f"[{number:{len(str(total))}}/{total}]" if total else f"[{number}]"


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
