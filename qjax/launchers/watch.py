"""What a person sees of a sweep: each job as it begins and ends, how much is left, and at the end
what failed.

    sweep of 12 jobs in runs/sweeps/2026-01-31_12-00-00
    [ 3/12] begins   w_bits=2 a_bits=4 seed=0
    [ 3/12] done     w_bits=2 a_bits=4 seed=0   93.10 %   12 s   (3 done, 9 waiting, ETA 1 min 48 s)
"""

from __future__ import annotations

import atexit
import contextlib
import math
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from qjax.launchers.jobs import JOBS, Job, read_jobs
from qjax.launchers.wording import ending, report, short, standing
from qjax.training.console import Stream

SECONDS = 0.5
"""Between two looks at the jobs."""
GRIDS = (".GridSweeper", ".BasicSweeper")
BEGINNING = ("running", "done")
ENDED_WELL = ("done", "skipped")


class Watch(Callback):
    """Hydra's callback for every launcher alike."""

    def __init__(self) -> None:
        self._reporter: Reporter | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Launchers send their callbacks to other processes; only this one reports.
        return {"_reporter": None}

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Say how many jobs there are and where they are kept; report on them from now on."""
        del kwargs
        sweep = Path(config.hydra.sweep.dir)
        _set_aside(sweep / JOBS)
        self._reporter = Reporter(sweep, count_jobs(config), swept(config), sys.stderr)
        self._reporter.start()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Tell what failed and why.

        Raises:
            SystemExit: with code 1 where a job failed.
        """
        del config, kwargs
        assert self._reporter is not None, "a sweep starts before it ends"
        if not self._reporter.stop():
            raise SystemExit(1)


class Reporter:
    """Reads the files of a sweep's jobs, wherever these run, and says what is new.

    Args:
        sweep: its folder.
        total: how many jobs it will have; None where nobody knows.
        varied: what it varies.
        stream: where to say it.
    """

    def __init__(self, sweep: Path, total: int | None, varied: Mapping[str, Any], stream: Stream):
        self.sweep, self.total, self.varied = sweep, total, varied
        self._stream = stream
        self._began = time.monotonic()
        self._known: dict[int, Job] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begin to report, in a thread of its own."""
        self._say(
            f"sweep of {'so many' if self.total is None else self.total} jobs in {self.sweep}"
        )
        # An interrupted sweep has its report too.
        atexit.register(self.stop)
        self._thread.start()

    def stop(self) -> bool:
        """Report for the last time; whether all went well."""
        self._over.set()
        self._thread.join()
        atexit.unregister(self.stop)
        self.look()
        jobs = [self._known[number] for number in sorted(self._known)]
        self._say(report(jobs, self.total, self.varied))
        fine = all(job.state in ENDED_WELL for job in jobs)
        if not fine:
            where = self.sweep / JOBS
            self._say(f"traces: {where}; the same command again runs what is not done")
        return fine

    def look(self) -> None:
        """Say what has happened since the last look."""
        ended = [number for number, job in self._known.items() if job.state != "running"]
        found = {job.number: job for job in read_jobs(self.sweep, ended)}
        new = {number: job for number, job in found.items() if job != self._known.get(number)}
        for number, job in new.items():
            if number not in self._known and job.state in BEGINNING:
                self._say(f"{self._place(number)} begins   {short(job.overrides, self.varied)}")
            self._known[number] = job
            if job.state != "running":
                known = list((found | self._known).values())
                left = standing(known, self.total, time.monotonic() - self._began)
                self._say(f"{self._place(number)} {ending(job, self.varied)}   ({left})")

    def _watch(self) -> None:
        while not self._over.wait(SECONDS):
            self.look()

    def _place(self, number: int) -> str:
        if self.total is None:
            return f"[{number + 1}]"
        return f"[{number + 1:{len(str(self.total))}}/{self.total}]"

    def _say(self, text: str) -> None:
        # A terminal that is gone, or a stream that is closed, is no reason to end a sweep.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text + "\n")
            self._stream.flush()


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
    is_grid = str(config.hydra.sweeper._target_).endswith(GRIDS)
    return math.prod(counts) if is_grid else None


def _set_aside(jobs: Path) -> None:
    """Keep what an earlier sweep in the same folder left, out of the way of this one."""
    if jobs.exists():
        number = len(list(jobs.parent.glob(f"{JOBS}.*"))) + 1
        jobs.rename(jobs.with_name(f"{JOBS}.{number}"))
