"""How the state of a sweep is told, in lines of text."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence

from qjax.launchers.jobs import Job
from qjax.training.console import duration


def short(words: Sequence[str], keys: Collection[str]) -> str:
    """Of a job's overrides those that the sweep varies; all of them where it varies none."""
    varied = [word for word in words if word.split("=")[0] in keys]
    return " ".join(varied or words)


def ending(job: Job, varied: Collection[str]) -> str:
    """How a job ended, in a line.

    Args:
        job: that has ended.
        varied: the keys that the sweep varies.

    Example:
        >>> job = Job(0, ("model=resnet20", "w_bits=2"), "done", seconds=12.0, accuracy=0.931)
        >>> ending(job, ["w_bits"])
        'done     w_bits=2   93.10 %   12 s'
    """
    words = short(job.overrides, varied)
    if job.state == "failed":
        return f"failed   {words}   {textwrap.shorten(job.error or '', 100, placeholder=' ...')}"
    how = "finished before" if job.state == "skipped" else duration(job.seconds)
    return f"{job.state:8} {words}   {_percent(job.accuracy)}   {how}"


def standing(jobs: Sequence[Job], total: int | None, seconds: float) -> str:
    """What is done and what is left.

    Args:
        jobs: that have begun.
        total: how many there will be; None for unknown.
        seconds: since the sweep began.

    Example:
        >>> jobs = [Job(0, (), "done", 6.0), Job(1, (), "failed", 4.0), Job(2, (), "running")]
        >>> standing(jobs, 6, 10.0)
        '1 done, 1 failed, 1 running, 3 waiting, ETA 20 s'
    """
    parts = [_counts(jobs)] if jobs else []
    if total is not None:
        states = [job.state for job in jobs]
        waiting = total - len(states)
        parts += [f"{waiting} waiting"] if waiting else []
        # What was finished before, or could not begin, took no time.
        worked = sum(job.state in ("done", "failed") and job.seconds > 0 for job in jobs)
        unfinished = waiting + states.count("running")
        if unfinished and worked:
            parts.append(f"ETA {duration(seconds / worked * unfinished)}")
    return ", ".join(parts)


def report(jobs: Sequence[Job], total: int | None, varied: Collection[str]) -> str:
    """The end of a sweep: counts, the best job, then every job that did not end well.

    Args:
        jobs: that have begun.
        total: how many there should be; None for unknown.
        varied: the keys that the sweep varies.
    """
    begun = _counts(jobs) or "no job began"
    missing = 0 if total is None else total - len(jobs)
    lines = [f"sweep: {begun}" + (f", {missing} never began" if missing else "")]
    known = [job for job in jobs if job.accuracy is not None]
    if len(known) > 1:
        best = max(known, key=lambda job: job.accuracy or 0.0)
        words = short(best.overrides, varied)
        lines.append(f"  best    {_percent(best.accuracy)}   {words}   {best.folder}")
    lost = "its process ended before the job did"
    errors = [(job, job.error if job.state == "failed" else lost) for job in jobs]
    bad = [pair for pair in errors if pair[0].state in ("failed", "running")]
    for error in dict.fromkeys(error for _, error in bad):
        for job in (job for job, own in bad if own == error):
            state = "failed" if job.state == "failed" else "lost"
            lines.append(f"  {state:7} {short(job.overrides, varied)}")
        lines.append(f"          {error}")
    return "\n".join(lines)


def _counts(jobs: Sequence[Job]) -> str:
    states = [job.state for job in jobs]
    known = ("done", "skipped", "failed", "running")
    return ", ".join(f"{states.count(s)} {s}" for s in known if s in states)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"
