"""`hydra/launcher=population`: a sweep in one process, whose jobs share compilations.

Jobs that differ in traced numbers only form a group. The members of a group train one after another
through the same compiled functions, each with its own folder, log and record: bit for bit what they
would give alone. With `population.stack=true` they step together (`qjax/launchers/stack.py`).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Hashable, Sequence
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from qjax.launchers.grouping import groups
from qjax.launchers.jobs import Plan, carry_out
from qjax.launchers.stack import Router, Stack
from qjax.training.programs import Programs


class Population:
    """Carries out jobs, group by group; a later batch of a sweeper shares with the earlier ones.

    Args:
        context: Hydra's.
        config: of the multirun.
        plan: from a job's configuration, and what its run may share, to the run and its folder.
    """

    def __init__(self, context: HydraContext, config: DictConfig, plan: Plan):
        self.context, self.config, self.plan = context, config, plan
        self._programs: dict[Hashable, Programs] = {}
        self._stacks: dict[Hashable, Stack] = {}

    def launch(self, overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        """Carry out a batch of jobs.

        Args:
            overrides: of each job.
            first: number of the first job.

        Returns:
            What each job returned, in the order of `overrides`.
        """
        setup_globals()
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        jobs = [self._job(words, first + i) for i, words in enumerate(overrides)]
        found = groups(jobs)
        sys.stderr.write(grouping_text(list(found.values()), overrides) + "\n")
        returned: dict[int, JobReturn] = {}
        for key, members in found.items():
            configs = [jobs[index] for index in members]
            stack = len(members) > 1 and bool(configs[0].population.stack)
            results = (self._stacked if stack else self._in_turn)(key, configs)
            returned |= dict(zip(members, results, strict=True))
        return [returned[index] for index in range(len(jobs))]

    def _job(self, overrides: Sequence[str], number: int) -> DictConfig:
        """The configuration of one job, as Hydra's own launchers make it."""
        made = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(made):
            made.hydra.job.id = str(number)
            made.hydra.job.num = number
        return made

    def _in_turn(self, key: Hashable, configs: Sequence[DictConfig]) -> list[JobReturn]:
        """Carry out jobs one after another, with the compiled functions of the first."""
        programs = self._programs.setdefault(key, Programs())
        task = partial(carry_out, plan=self.plan, programs=programs)
        return [
            run_job(
                task_function=task,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
                hydra_context=self.context,
            )
            for config in configs
        ]

    def _stacked(self, key: Hashable, configs: Sequence[DictConfig]) -> list[JobReturn]:
        """Carry out jobs together, their training steps stacked in one program."""
        stack = self._stacks.setdefault(key, Stack(len(configs)))
        if stack.members < len(configs):
            stack = self._stacks[key] = Stack(len(configs))
        router = Router(sys.stderr)
        task = partial(carry_out, plan=self.plan, programs=stack.programs, log=router.logged)
        returned = [JobReturn(overrides=list(c.hydra.overrides.task)) for c in configs]

        def work(config: DictConfig, result: JobReturn) -> None:
            # Hydra's `run_job` keeps the present job in one place for the process: not for jobs
            # that take turns. Up to its first training step a job is not interrupted.
            HydraConfig.instance().set_config(config)
            self.context.callbacks.on_job_start(config=config, task_function=task)
            own = config.copy()
            with open_dict(own):
                del own["hydra"]
            try:
                result.return_value, result.status = task(own), JobStatus.COMPLETED
            except Exception as error:
                result.return_value, result.status = error, JobStatus.FAILED
            self.context.callbacks.on_job_end(config=config, job_return=result)

        with contextlib.redirect_stderr(router), contextlib.redirect_stdout(router):
            stack.run([partial(work, *pair) for pair in zip(configs, returned, strict=True)])
        return returned


def grouping_text(found: Sequence[Sequence[int]], overrides: Sequence[Sequence[str]]) -> str:
    """The groups, for the terminal."""
    jobs = sum(len(members) for members in found)
    common = set.intersection(*map(set, overrides)) if jobs > 1 else set()
    lines = [f"population: {jobs} jobs in {len(found)} group{'s' * (len(found) > 1)}"]
    for members in found:
        own = [" ".join(w for w in overrides[i] if w not in common) for i in members]
        how = "on its own" if len(members) == 1 else f"{len(members)} jobs share one compilation"
        lines.append(f"  {how}: {', '.join(own)}")
    return "\n".join(lines)
