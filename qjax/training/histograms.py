"""How the values and the codes of each quantizer are distributed, as counts for a file.

TensorBoard's events hold the same; the counts are for notebooks, whether events are written or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

BINS = 64


def counted(drawn: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Place -> `values` and `codes`, each with its ends and counts; what is not finite is left out.

    Args:
        drawn: `Diagnosis.histograms`: tag -> elements, `values/PLACE` and `codes/PLACE`.

    Example:
        >>> counted({"codes/act.output": np.array([0.0, 2.0, 2.0])})
        {'act.output': {'codes': {'low': 0.0, 'high': 2.0, 'counts': [1, 0, 2]}}}
    """
    found: dict[str, dict[str, Any]] = {}
    for tag, elements in drawn.items():
        kind, place = tag.split("/", 1)
        x = np.asarray(elements, np.float64)
        if not x.size or not np.all(np.isfinite(x)):
            continue
        low, high = float(x.min()), float(x.max())
        if kind == "codes":
            counts = np.bincount(np.round(x - low).astype(np.int64))
        else:
            counts = np.histogram(x, BINS, (low, high))[0]
        row = {"low": low, "high": high, "counts": counts.tolist()}
        found.setdefault(place, {})[kind] = row
    return found
