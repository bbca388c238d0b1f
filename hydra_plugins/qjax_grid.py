"""The sweeper `grid` where Hydra looks for sweepers: every combination of the values given.

Hydra's own, `basic`, starts nothing if one combination cannot be composed; here that job fails and
the others run. Hydra imports this file for every command, so it imports nothing of qjax before it
is needed.
"""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class GridSweeper(Sweeper):
    """Launches every combination of the values of a sweep.

    Args:
        max_batch_size: jobs that the launcher gets at a time; None for all.
        params: key -> values, of a named sweep; the command line's come after them.
    """

    def __init__(self, max_batch_size: int | None, params: dict[str, Any] | None = None) -> None:
        if max_batch_size is not None and max_batch_size < 1:
            raise ValueError(f"max_batch_size must be at least 1, or null, got {max_batch_size!r}")
        self.max_batch_size = max_batch_size
        self.params = params or {}
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.launcher: Launcher | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """What Hydra hands to every sweeper."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Launch the jobs of a command line; what each returned, batch by batch."""
        assert self.config is not None and self.launcher is not None, "Hydra sets up first"
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        returned, first = [], 0
        for batch in self._batches(arguments):
            returned.append(self.launcher.launch(batch, initial_job_idx=first))
            first += len(batch)
        return returned

    def _batches(self, arguments: list[str]) -> Iterator[list[list[str]]]:
        """The jobs that can be composed, never none at a time; the others are told of first.

        Jobs that cannot be composed have the last numbers, so that the launcher can count.
        """
        words = [f"{key}={value}" for key, value in self.params.items()] + arguments
        overrides = OverridesParser.create().parse_overrides(words)
        ((*jobs,),) = BasicSweeper.split_arguments(overrides, None)
        errors = [self._error(job) for job in jobs]
        refused = [pair for pair in zip(jobs, errors, strict=True) if pair[1] is not None]
        legal = [job for job, error in zip(jobs, errors, strict=True) if error is None]
        for number, (job, error) in enumerate(refused, start=len(legal)):
            self._refuse(number, job, error)
        yield from map(list, itertools.batched(legal, self.max_batch_size or len(jobs)))

    def _error(self, overrides: list[str]) -> Exception | None:
        """Why Hydra cannot compose a job."""
        assert self.hydra_context is not None and self.config is not None, "Hydra sets up first"
        try:
            self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        except Exception as error:
            return error
        return None

    def _refuse(self, number: int, overrides: list[str], error: Exception | None) -> None:
        from qjax.launchers.jobs import Job

        assert self.config is not None and error is not None
        told = " ".join(str(error).partition("Config search path")[0].split())
        trace = "".join(traceback.format_exception(error))
        job = Job(number, tuple(overrides), "failed", error=told, trace=trace)
        job.write(Path(self.config.hydra.sweep.dir))
