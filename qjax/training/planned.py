"""A run and the folder of its record, before anything is written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from qjax.record import RunRecord, config_hash, read
from qjax.training.devices import agreed
from qjax.training.programs import Programs
from qjax.training.run import Run
from qjax.training.spec import RunSpec


@dataclasses.dataclass(frozen=True)
class Planned:
    """What is to be done.

    Attributes:
        spec: the run.
        folder: of its record.
        programs: compiled functions of earlier runs, to share; None to compile its own.
    """

    spec: RunSpec
    folder: Path
    programs: Programs | None = None

    @property
    def finished(self) -> bool:
        """Whether the folder holds the finished record of this very configuration."""
        if not (self.folder / "result.json").exists():
            return False
        return read(self.folder).config_hash == config_hash(self.spec.config)

    @property
    def begun(self) -> bool:
        """Whether the folder holds a run, finished or not."""
        return (self.folder / "config.yaml").exists()

    def carry_out(self) -> RunRecord:
        """Train from the start, or go on where an earlier attempt was stopped; write the record.

        Raises:
            ValueError: a network that its target cannot run, or a teacher of other images; nothing
                is written then.
        """
        # Asked before the first process begins the folder.
        resume = agreed(self.begun)
        if not resume:
            self.spec.check_target()
            self.spec.check_teachers()
        return Run(self.spec, self.folder, self.programs)(resume=resume)


def fresh(folder: Path) -> Path:
    """The first of FOLDER, FOLDER-r2, FOLDER-r3, ... that holds no finished run."""
    number, candidate = 1, folder
    while (candidate / "result.json").exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-r{number}")
    return candidate
