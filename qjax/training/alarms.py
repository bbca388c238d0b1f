"""Alarms: what in a diagnosis a researcher should know at once, with the layer's name.

An alarm is raised when it first occurs and kept in the record with the epoch of its last
occurrence. Thresholds are set so that healthy training raises none.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

ALL_ZERO = 0.999
MOSTLY_CLIPPED = 0.5
FEW_CODES = 16
"""Grids of at most so many codes should use a quarter of them; finer ones may hold few values."""
OSCILLATING = 0.3
WEAK_WEIGHTS_DB = 1.0


@dataclasses.dataclass
class Alarm:
    """One kind of trouble in one place.

    Attributes:
        place: "path.slot".
        kind: one word, see `find`.
        message: with place, value and remedy.
        phase, epoch: of the first occurrence. last_phase, last_epoch: of the last.
    """

    place: str
    kind: str
    message: str
    phase: str
    epoch: int
    last_phase: str
    last_epoch: int


class Alarms:
    """The alarms of a run, in order of first occurrence.

    Args:
        known: from the checkpoint that the run goes on from.
    """

    def __init__(self, known: list[dict[str, Any]] | None = None):
        self._found = {(row["place"], row["kind"]): Alarm(**row) for row in known or ()}

    def check(self, report: Mapping[str, Mapping[str, float]], phase: str, epoch: int) -> list[str]:
        """Takes in the diagnosis of an epoch; the messages of new alarms."""
        new = []
        for place, row in report.items():
            for kind, message in find(place, row):
                known = self._found.get((place, kind))
                if known is None:
                    text = f"{place}: {message}"
                    self._found[place, kind] = Alarm(place, kind, text, phase, epoch, phase, epoch)
                    new.append(text)
                else:
                    known.last_phase, known.last_epoch = phase, epoch
        return new

    def rows(self) -> list[dict[str, Any]]:
        """Plain values for checkpoint and record."""
        return [dataclasses.asdict(alarm) for alarm in self._found.values()]


def find(place: str, row: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """(kind, message) of what is wrong with one quantizer.

    Kinds: `nonfinite`, `dead`, `constant`, `few_codes`, `clipped`, `oscillating`, `weak`,
    `no_gradient`.
    """
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    if bad:
        yield "nonfinite", f"{', '.join(bad)} not finite; lower the learning rate"
    if row["zeros"] >= ALL_ZERO:
        yield "dead", "everything is rounded to zero; start with a smaller step or clip"
    elif row["levels"] <= 1:
        yield "constant", "all codes are one; start with a smaller step or clip, or use more bits"
    else:
        yield from _use_of_codes(row)
    if row.get("clipped", 0) > MOSTLY_CLIPPED:
        share = f"{100 * row['clipped']:.0f} %"
        yield "clipped", f"{share} of the tensor is clipped; start with a larger clip or range"
    if row.get("oscillating", 0) > OSCILLATING:
        share = f"{100 * row['oscillating']:.0f} %"
        yield "oscillating", f"{share} of the weight codes go back and forth; lower the rate"
    if place.endswith(".weight") and row["sqnr_db"] < WEAK_WEIGHTS_DB:
        yield "weak", f"{row['sqnr_db']:.1f} dB of signal to noise; use more bits or another grid"
    # Weights that are all held (the last part of ELQ) receive none on purpose.
    if row.get("gradient_norm") == 0 and row.get("held", 0) < 1:
        yield "no_gradient", "no gradient reaches the weights; look for a dead layer behind it"


def _use_of_codes(row: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    declared = row["levels"] / max(1 - row["dead_codes"], 1e-9)
    if 4 <= declared <= FEW_CODES and row["levels"] <= declared / 4:
        yield (
            "few_codes",
            f"{row['levels']:.0f} of {declared:.0f} codes are used; start with a smaller step or "
            "clip",
        )
