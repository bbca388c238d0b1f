"""`hydra/launcher=population`: a sweep in one process, whose jobs share compilations.

Jobs that differ in traced numbers only form a group. The members of a group train one after another
through the same compiled functions, each with its own folder, log and record: bit for bit what they
would give alone. With `population.stack=true` they step together (`qjax/launchers/stack.py`).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from qjax.launchers.grouping import groups
from qjax.launchers.jobs import carry_out
from qjax.launchers.stack import Router, Stack
from qjax.training.planned import Planned
from qjax.training.programs import Programs

Plan = Callable[[DictConfig], Planned]


def launch(
    context: HydraContext,
    config: DictConfig,
    overrides: Sequence[Sequence[str]],
    first: int,
    plan: Plan,
) -> list[JobReturn]:
    """Carry out the jobs of a sweep, group by group.

    Args:
        context: Hydra's.
        config: of the multirun.
        overrides: of each job.
        first: number of the first job; later batches of a sweeper count on.
        plan: from a job's configuration to its run and folder.

    Returns:
        What each job returned, in the order of `overrides`.
    """
    setup_globals()
    Path(config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
    jobs = [job_config(context, config, words, first + i) for i, words in enumerate(overrides)]
    found = groups(jobs)
    sys.stderr.write(grouping_text(found, overrides) + "\n")
    returned: dict[int, JobReturn] = {}
    for members in found:
        configs = [jobs[index] for index in members]
        stack = len(members) > 1 and bool(configs[0].population.stack)
        results = (in_one_stack if stack else in_turn)(context, configs, plan)
        returned |= dict(zip(members, results, strict=True))
    return [returned[index] for index in range(len(jobs))]


def in_turn(context: HydraContext, configs: Sequence[DictConfig], plan: Plan) -> list[JobReturn]:
    """Carry out jobs one after another, with the compiled functions of the first."""
    task = partial(carry_out, plan=plan, programs=Programs())
    return [
        run_job(
            task_function=task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=context,
        )
        for config in configs
    ]


def in_one_stack(
    context: HydraContext, configs: Sequence[DictConfig], plan: Plan
) -> list[JobReturn]:
    """Carry out jobs together, their training steps stacked in one program."""
    stack, router = Stack(len(configs)), Router(sys.stderr)
    task = partial(carry_out, plan=plan, programs=stack.programs, log=router.logged)
    returned = [JobReturn(overrides=list(c.hydra.overrides.task)) for c in configs]

    def work(config: DictConfig, result: JobReturn) -> None:
        # Hydra's `run_job` keeps the present job in one place for the process: not for jobs that
        # take turns. Up to its first training step a job is not interrupted.
        HydraConfig.instance().set_config(config)
        context.callbacks.on_job_start(config=config, task_function=task)
        own = config.copy()
        with open_dict(own):
            del own["hydra"]
        result.return_value, result.status = task(own), JobStatus.COMPLETED
        context.callbacks.on_job_end(config=config, job_return=result)

    with contextlib.redirect_stderr(router), contextlib.redirect_stdout(router):
        stack.run([partial(work, *pair) for pair in zip(configs, returned, strict=True)])
    return returned


def job_config(
    context: HydraContext, config: DictConfig, overrides: Sequence[str], number: int
) -> DictConfig:
    """The configuration of one job, as Hydra's own launchers make it."""
    made = context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(made):
        made.hydra.job.id = str(number)
        made.hydra.job.num = number
    return made


def grouping_text(found: Sequence[Sequence[int]], overrides: Sequence[Sequence[str]]) -> str:
    """The groups, for the terminal."""
    jobs = sum(len(members) for members in found)
    common = set.intersection(*map(set, overrides)) if jobs > 1 else set()
    lines = [f"population: {jobs} jobs, {len(found)} groups"]
    for members in found:
        own = [" ".join(w for w in overrides[i] if w not in common) for i in members]
        how = "on its own" if len(members) == 1 else f"{len(members)} jobs share one compilation"
        lines.append(f"  {how}: {', '.join(own)}")
    return "\n".join(lines)
