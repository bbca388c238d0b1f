"""A run that is told to end saves first, and says how to go on.

A batch system tells it by SIGTERM, some time before it kills: at a time limit, or to make room.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

from qjax.training.devices import disconnect, first_process

EXIT_CODE = 128 + signal.SIGTERM


class Stopped(SystemExit):
    """Ends the process, a sweep too, with the exit code of one that SIGTERM ended, 143."""


class Stop:
    """Whether this run was told to end. In a `with` statement it notes SIGTERM, which otherwise
    ends the process at once; a handler that is there already keeps it.
    """

    def __init__(self) -> None:
        self._told = self._handles = False
        self._times = 0

    def __enter__(self) -> Self:
        # Of several processes JAX itself takes the signal; handlers belong to the main thread.
        own = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()
        self._handles = own and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if self._handles:
            signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        if self._handles:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def told(self) -> bool:
        """The answer, which all of several processes get at the same call of this method."""
        if jax.process_count() == 1:
            return self._told
        self._times += 1
        return multihost_utils.reached_preemption_sync_point(self._times)

    def _note(self, number: int, frame: Any) -> None:
        del number, frame
        self._told = True


def stopped(folder: Path, step: int) -> Stopped:
    """What to raise once a run has saved; it parts from other processes and says how to go on.

    Args:
        folder: of the run.
        step: updates made in the whole run.
    """
    if first_process():
        sys.stderr.write(
            f"stopped by SIGTERM, saved at step {step}; repeat the command to go on, or run "
            f"python -m qjax.train run.resume={folder}\n"
        )
    # It waits for the process that saves.
    disconnect()
    return Stopped(EXIT_CODE)
