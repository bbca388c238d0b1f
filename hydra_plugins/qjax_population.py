"""The launcher `population` where Hydra looks for launchers; `qjax/launchers` does the work.

Hydra imports this file for every command, so it imports nothing of qjax before it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class PopulationLauncher(Launcher):
    """Carries out the jobs of a sweep in one process, with shared compilations.

    Args:
        plan: from a job's configuration, and what its run may share, to the run and its folder,
            see `qjax.train.plan`.
    """

    def __init__(self, plan: Callable[..., Any]) -> None:
        self.plan = plan
        self.population: Any = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """What Hydra hands to every launcher; the task itself is `plan` here."""
        from qjax.launchers.population import Population

        del task_function
        self.population = Population(hydra_context, config, self.plan)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Carry out a batch of jobs; what each returned, in their order."""
        assert self.population is not None, "Hydra sets up first"
        return self.population.launch(job_overrides, initial_job_idx)
