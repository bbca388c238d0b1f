"""Finds finished runs under folders, whatever order the file system lists them in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qjax.results.aggregate import accuracy
from qjax.results.schema import RunRecord, read


@dataclass(frozen=True)
class Collected:
    """Records ordered by what they ran; a line for each file or run left out, and why.

    `folders` says where each record was read, by `config_hash`.
    """

    records: tuple[RunRecord, ...]
    problems: tuple[str, ...]
    folders: dict[str, Path]


def collect(roots: Sequence[Path]) -> Collected:
    """Reads every `result.json` under `roots`; a root that does not exist holds no runs.

    A run recorded more than once (equal `config_hash`) counts once, by its latest record.
    """
    folders = sorted(
        {path.parent.resolve() for root in roots for path in root.rglob("result.json")}
    )
    latest: dict[str, RunRecord] = {}
    places: dict[str, Path] = {}
    problems = []
    for folder in folders:
        try:
            record = read(folder)
        except ValueError as error:
            problems.append(f"left out: {error}")
            continue
        rival = latest.get(record.config_hash)
        if rival is not None and rival != record:
            problems.append(
                f"{folder}: run {record.config_hash} is recorded twice; the later counts"
            )
        if rival is None or _age(rival) < _age(record):
            latest[record.config_hash] = record
            places[record.config_hash] = folder
    return Collected(tuple(sorted(latest.values(), key=_place)), tuple(problems), places)


def tidy(records: Sequence[RunRecord]) -> list[dict[str, object]]:
    """One flat row a run, accuracies in percent: what a notebook plots from."""
    return [
        {
            "run": r.config_hash,
            "group": r.group_hash,
            "experiment": r.experiment,
            "method": r.method,
            "data": r.data,
            "model": r.model,
            "recipe": r.recipe,
            "target": r.target,
            "bn": r.bn,
            "procedure": r.procedure,
            "w_bits": r.w_bits,
            "a_bits": r.a_bits,
            "g_bits": r.g_bits,
            "e_bits": r.e_bits,
            "epochs": r.epochs,
            "seed": r.seed,
            "float": _percent(r.accuracy["float"]),
            "simulated": _percent(r.accuracy["simulated"]),
            "integer": _percent(accuracy(r, "integer")),
            "predictions_agree": _percent(
                r.agreement["predictions"] if accuracy(r, "integer") is not None else None
            ),
            "weight_bytes": r.integer["weight_bytes"],
            "bit_operations": r.bit_operations,
            "seconds": r.seconds,
        }
        for r in records
    ]


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _age(record: RunRecord) -> tuple[str, str]:
    # Two records of one second and one run: any fixed order will do, so long as it is fixed.
    return record.finished, repr(record)


def _place(r: RunRecord) -> tuple[object, ...]:
    return (r.method, r.data, r.model, r.w_bits, r.a_bits, r.epochs, r.group_hash, r.seed)
