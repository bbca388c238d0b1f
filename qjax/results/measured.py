"""`measured.csv`: one row for each group of runs, with what is needed to find and judge them."""

import statistics
from collections.abc import Sequence

from qjax.results.aggregate import Group, Summary
from qjax.results.markdown import Cell, csv_text
from qjax.results.schema import RunRecord

COLUMNS = (
    "runs",
    "experiment",
    "method",
    "data",
    "model",
    "recipe",
    "w_bits",
    "a_bits",
    "g_bits",
    "e_bits",
    "epochs",
    "seeds",
    "n",
    "mean",
    "std",
    "integer_mean",
    "integer_std",
    "float_mean",
    "float_std",
    "weight_bytes",
    "bit_operations",
    "seconds",
    "hardware",
    "commit",
)


def measured_csv(groups: Sequence[Group]) -> str:
    """The text of `measured.csv`.

    `mean` and `std` are percent correct of the simulated network, or of the float one where nothing
    is quantized; `runs` are the configuration hashes, in the order of `seeds`; `seconds` is of
    one run, on average.
    """
    return csv_text(COLUMNS, [_row(group) for group in groups])


def hardware(run: RunRecord) -> str:
    """The device, with the processor and its cores where the record says them."""
    machine = run.environment
    if "processor" not in machine:
        return run.device
    return f"{run.device} ({machine['processor']}; {machine.get('cores')} cores)"


def _row(group: Group) -> list[Cell]:
    first = group.first
    return [
        " ".join(run.config_hash for run in group.runs),
        first.experiment,
        first.method,
        first.data,
        first.model,
        first.recipe,
        first.w_bits,
        first.a_bits,
        first.g_bits,
        first.e_bits,
        f"{first.epochs:g}",
        " ".join(str(run.seed) for run in group.runs),
        len(group.runs),
        *_mean_and_std(group.headline()),
        *_mean_and_std(group.summary("integer")),
        *_mean_and_std(group.summary("float")),
        first.integer["weight_bytes"],
        first.bit_operations,
        round(statistics.fmean(run.seconds for run in group.runs), 1),
        " + ".join(sorted({hardware(run) for run in group.runs})),
        " ".join(sorted({run.commit or "unknown" for run in group.runs})),
    ]


def _mean_and_std(summary: Summary | None) -> tuple[Cell, Cell]:
    if summary is None:
        return None, None
    return f"{summary.mean:.4f}", None if summary.std is None else f"{summary.std:.4f}"
