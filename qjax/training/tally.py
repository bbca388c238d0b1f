"""What an epoch came to, and what it has come to so far: it can be saved in its middle."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from qjax.training.calls import gathered
from qjax.training.step import Metrics


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        index: counted from 0 within the phase.
        loss: mean over the steps taken, penalties included.
        train_accuracy: running, over the augmented training batches.
        test_accuracy: after the epoch, on the held-out split.
        learning_rate: of the last step.
        seconds: training and evaluation, from where this process took the epoch up.
    """

    index: int
    loss: float
    train_accuracy: float
    test_accuracy: float
    learning_rate: float
    seconds: float


class Tally:
    """Counts of an epoch.

    Args:
        saved: what `saved` gave when a process before this one was in the epoch; None at its start.

    Attributes:
        steps: that were taken, those of the process before included.
    """

    def __init__(self, saved: Mapping[str, Any] | None = None):
        known: Mapping[str, Any] = {"steps": 0, "losses": [], "correct": 0, "learning_rate": 0.0}
        known = known if saved is None else saved
        self.steps: int = known["steps"]
        # Steps that overflowed under a loss scale were not taken, and have no loss.
        self._losses = np.asarray(known["losses"], np.float32)
        self._correct: int = known["correct"]
        self._rate: float = known["learning_rate"]
        self._calls: list[Metrics] = []
        self._new = 0

    def add(self, found: Metrics, steps: int) -> None:
        """Counts a call, whose metrics may still be on the device, of so many steps."""
        self._calls.append(found)
        self._new += steps
        self.steps += steps

    def totals(self) -> tuple[float, float, float]:
        """(mean loss, images whose class was right, latest learning rate)."""
        self._gather()
        loss = float(np.mean(self._losses)) if len(self._losses) else float("nan")
        return loss, float(self._correct), self._rate

    def saved(self) -> dict[str, Any]:
        """The counts as JSON can hold them, to the last bit."""
        self._gather()
        losses = [float(loss) for loss in self._losses]
        numbers = {"correct": self._correct, "learning_rate": self._rate}
        return {"steps": self.steps, "losses": losses, **numbers}

    def _gather(self) -> None:
        if not self._calls:
            return
        rows = gathered(self._calls, self._new)
        self._losses = np.concatenate([self._losses, rows["loss"][rows["taken"]]])
        self._correct += int(np.sum(rows["correct"]))
        self._rate = float(rows["learning_rate"][-1])
        self._calls, self._new = [], 0
