"""The jobs of `run_batch.py`: read from files, chosen by priority, their records packed."""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

KEPT = ("result.json", "config.yaml", "layers.json", "layers.txt", "metrics.jsonl")
DROPPED_FIRST = "metrics.jsonl"
_NAMING = ("experiment", "method")
_LINE = re.compile(r"([\w-]+):\s+(\S.*)")


@dataclass
class Job:
    """One run: its overrides, the line that it shares compilations with, and what became of it."""

    group: str
    line: int
    overrides: tuple[str, ...]
    label: str
    needs_core: bool = False
    state: str = "waiting"
    answer: dict[str, Any] = field(default_factory=dict)


def read_jobs(paths: Sequence[Path], changes: Sequence[str] = ()) -> list[Job]:
    """The jobs of files, in order of priority.

    Args:
        paths: job files, the most urgent first.
        changes: `GROUP:OVERRIDE`, added to every line of the group.

    Raises:
        ValueError: a line that is not `GROUP: OVERRIDE ...`, or an override that Hydra cannot read;
            or a change of a group that no file has.
    """
    parts = [change.partition(":") for change in changes]
    lines = []
    for path in paths:
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not (text := text.partition("#")[0].strip()):
                continue
            if (found := _LINE.fullmatch(text)) is None:
                raise ValueError(
                    f"{path}, line {number}: must be GROUP: OVERRIDE ..., got {text!r}"
                )
            lines.append((found[1], shlex.split(found[2]), f"{path}, line {number}"))
    groups = list(dict.fromkeys(group for group, _, _ in lines))
    if unknown := [group for group, _, _ in parts if group not in groups]:
        raise ValueError(f"--set: no group {unknown[0]!r}; groups are {', '.join(groups)}")
    lines.sort(key=lambda line: groups.index(line[0]))
    jobs = []
    for index, (group, words, where) in enumerate(lines):
        words += [word for name, _, word in parts if name == group]
        jobs += _swept(group, index, words, where)
    return jobs


def _swept(group: str, line: int, words: list[str], where: str) -> list[Job]:
    """The jobs of one line, labelled by what distinguishes them and by the experiment."""
    try:
        parsed = OverridesParser.create().parse_overrides(words)
        (batch,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    except OverrideParseException as error:
        raise ValueError(f"{where}: {error}") from error
    shown = {o.key_or_group for o in parsed if o.is_sweep_override() or o.key_or_group in _NAMING}
    # The sweeper escapes braces for a shell; here none reads them.
    plain = ([re.sub(r"\\([{}])", r"\1", word) for word in own] for own in batch)
    return [Job(group, line, tuple(own), _label(own, shown)) for own in plain]


def _label(words: Sequence[str], shown: set[str]) -> str:
    return " ".join(word for word in words if word.split("=")[0].strip("+") in shown)


def choose(jobs: Sequence[Job], line: int | None, gpu_groups: Sequence[str], on_gpu: bool):
    """The job that a free worker takes, or None: its own line first, else the first group that
    has jobs waiting, there the line that the fewest workers are on.

    Args:
        jobs: all of them, in order of priority.
        line: of the worker's last job.
        gpu_groups: what workers on the accelerator take first, and others last.
        on_gpu: whether the worker is one of these.
    """
    waiting = [job for job in jobs if job.state == "waiting" and not (on_gpu and job.needs_core)]
    waiting.sort(key=lambda job: (job.group in gpu_groups and not job.needs_core) != on_gpu)
    if not waiting:
        return None
    first = waiting[0].group
    if own := [job for job in waiting if job.line == line and job.group == first]:
        return own[0]
    busy = [job.line for job in jobs if job.state == "running"]
    return min((job for job in waiting if job.group == first), key=lambda job: busy.count(job.line))


def pack(folders: Sequence[Path], path: Path, limit: int) -> tuple[int, bool]:
    """Packs the records of runs, and leaves the curves out where they would pass `limit` bytes.

    Returns:
        The bytes written, and whether the curves are among them.

    Raises:
        ValueError: the rest passes the limit too; nothing is written.
    """
    for names in (KEPT, tuple(name for name in KEPT if name != DROPPED_FIRST)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for folder in folders:
                for file in (folder / name for name in names):
                    if file.exists():
                        archive.add(file)
        if buffer.tell() <= limit:
            path.write_bytes(buffer.getvalue())
            return buffer.tell(), DROPPED_FIRST in names
    raise ValueError(
        f"--out: the records take {buffer.tell()} bytes, more than {limit}; use --limit"
    )
