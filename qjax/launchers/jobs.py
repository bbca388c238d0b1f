"""The jobs of a sweep: each keeps its state in a file of the sweep's folder.

Files, because a job may run in another process or on another machine; one a job, because appends to
a shared file can mix on a network file system.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from qjax.record import read
from qjax.training.planned import Planned
from qjax.training.programs import Programs

Plan = Callable[[DictConfig, Programs | None], Planned]

JOBS = "jobs"
LOG = "log.txt"
STATES = ("running", "done", "skipped", "failed")


@dataclasses.dataclass(frozen=True)
class Job:
    """One job as its file tells.

    Attributes:
        number: counted from 0 within the sweep.
        overrides: what the command line gave it.
        state: one of `STATES`; skipped: its finished record was there already.
        seconds: that it took; 0 while it runs.
        folder: of its record; None before that is known.
        accuracy: of the last form that the network reached: integer, else simulated, else float.
        error: what went wrong, in a line. trace: where.
    """

    number: int
    overrides: tuple[str, ...]
    state: str = "running"
    seconds: float = 0.0
    folder: str | None = None
    accuracy: float | None = None
    error: str | None = None
    trace: str | None = None

    def write(self, sweep: Path) -> None:
        """Write the job's file into the folder of the sweep, whole or not at all."""
        path = sweep / JOBS / f"{self.number:04d}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        partial.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)


def read_jobs(sweep: Path, known: Collection[int] = ()) -> list[Job]:
    """The jobs that have begun, by number.

    Args:
        sweep: its folder.
        known: numbers of jobs that are left out.
    """
    found = []
    for path in sorted((sweep / JOBS).glob("*.json")):
        if int(path.stem) in known:
            continue
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        fields["overrides"] = tuple(fields["overrides"])
        found.append(Job(**fields))
    return found


def present_job() -> tuple[Path, Job]:
    """Folder of the sweep, and the job that Hydra is about to run in this process."""
    hydra = HydraConfig.get()
    return Path(hydra.sweep.dir), Job(hydra.job.num, tuple(hydra.overrides.task))


def carry_out(
    config: DictConfig,
    plan: Plan,
    programs: Programs | None = None,
    log: Callable[[Path], AbstractContextManager[None]] | None = None,
) -> float | None:
    """One job, from its configuration to its record; what it prints goes into its folder's log.

    An error is kept in the job's file, for the report at the end, and stops no other job.

    Args:
        config: of the job, under Hydra's multirun.
        plan: from a configuration, and what its run may share, to the run and its folder.
        programs: of earlier jobs, to share; None to compile its own.
        log: sends what is printed meanwhile to a file; None for `logged`.

    Returns:
        The accuracy of the last form that the network reached (integer, else simulated, else
        float), which an optimizing sweeper maximizes; None after an error.
    """
    sweep, job = present_job()
    job.write(sweep)
    begin = time.perf_counter()

    def ends(**fields: Any) -> None:
        seconds = round(time.perf_counter() - begin, 3)
        dataclasses.replace(job, seconds=seconds, **fields).write(sweep)

    folder = None
    try:
        planned = plan(config, programs)
        folder = str(planned.folder)
        skipped = planned.finished
        if not skipped:
            with (log or logged)(planned.folder / LOG):
                planned.carry_out()
        accuracy = final_accuracy(planned.folder)
    except Exception as error:
        trace = traceback.format_exc()
        ends(state="failed", folder=folder, error=in_words(error), trace=trace)
        return None
    ends(state="skipped" if skipped else "done", folder=folder, accuracy=accuracy)
    return accuracy


@contextlib.contextmanager
def logged(path: Path) -> Iterator[None]:
    """Send what is printed in the meantime to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            yield


def final_accuracy(folder: Path) -> float:
    """Accuracy of the last form that a finished run's network reached."""
    accuracy = read(folder).accuracy
    known = (accuracy[form] for form in ("integer", "simulated", "float"))
    return next(value for value in known if value is not None)


def in_words(error: Exception) -> str:
    """An error in a line; of Hydra's wrapping only the key that it names is kept."""
    if not isinstance(error, InstantiationException) or error.__cause__ is None:
        return f"{type(error).__name__}: {error}"
    where = str(error).splitlines()[-1]
    return f"{type(error.__cause__).__name__}: {error.__cause__} ({where})"
