"""The layout of `result.json`, and the reader that holds every file to it.

Fractions are in [0, 1], times in seconds, sizes in bytes. Bits are 1 to 32, 32 standing for float.
A file that is broken is an error that names the file and the field; nothing is guessed.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict

SCHEMA = 1

# Not the class syntax: in a class body the key `float` would hide the type.
Accuracy = TypedDict(  # noqa: UP013
    "Accuracy", {"float": float | None, "simulated": float | None, "integer": float | None}
)


class Agreement(TypedDict):
    """Share of equal class predictions, and of equal codes per layer, simulated against integer."""

    predictions: float | None
    codes: dict[str, float]


class IntegerPart(TypedDict):
    """What the integer form is made of; `float_free` speaks of all but `float_layers`."""

    float_free: bool
    float_layers: list[str]
    weight_bytes: int
    accumulator_bits: dict[str, int]
    policy: str | None


@dataclass(frozen=True)
class RunRecord:
    """A finished run, field by field as in `result.json` (hence more fields than a setting has).

    `config_hash` names the run; `group_hash` is shared by runs that differ in nothing but seeds.
    `bit_operations` is the sum over layers of MACs x weight bits x input bits for one image.
    `g_bits` and `e_bits` are null where gradients and errors stay float; `target` is "none" where
    recipe and policy were chosen one by one. `bn` and `procedure` name the chosen files of `conf/`,
    null in records that do not say. What the file holds beyond these fields is kept in `extra`.
    """

    experiment: str
    method: str
    data: str
    model: str
    w_bits: int
    a_bits: int
    seed: int
    recipe: str
    epochs: float
    accuracy: Accuracy
    agreement: Agreement
    integer: IntegerPart
    seconds: float
    device: str
    versions: dict[str, str]
    references: list[str]
    data_source: dict[str, Any]
    config_hash: str
    group_hash: str
    finished: str
    commit: str | None
    schema: int = SCHEMA
    g_bits: int | None = None
    e_bits: int | None = None
    bit_operations: int | None = None
    target: str = "none"
    bn: str | None = None
    procedure: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def read(folder: str | Path) -> RunRecord:
    """Reads and checks the record of a finished run.

    Raises:
        FileNotFoundError: there is no `result.json`.
        ValueError: it is broken; the message names the file and the field.
    """
    path = Path(folder) / "result.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; the run has not finished, or the folder is not a run's"
        )
    return check(_parsed(path.read_bytes(), path), path)


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Reads `metrics.jsonl`, one dict a line; a killed run's half-written last one is left out."""
    path = Path(folder) / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [_parsed(line, path) for line in lines if line.endswith(b"\n")]


def read_histograms(folder: str | Path) -> dict[str, Any]:
    """Reads `histograms.json`: `step`, and in `quantizers`, by place, `values` and `codes`.

    Each has `counts` from `low` to `high`: of values in bins of equal width, of codes one a code.

    Raises:
        FileNotFoundError: nothing was diagnosed.
        ValueError: it is broken.
    """
    path = Path(folder) / "histograms.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a quantized phase writes it")
    return _parsed(path.read_bytes(), path)


def check(raw: Any, path: Path) -> RunRecord:
    """Makes a record of the parsed `raw`; `path` is only named in errors.

    Raises:
        ValueError: a field is missing, of the wrong kind, out of range or not finite.
    """
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: must hold one JSON object, got {type(raw).__name__}")
    if raw.get("schema") != SCHEMA:
        raise ValueError(
            f"{path}: schema must be {SCHEMA}, got {raw.get('schema')!r}; "
            "read it with the qjax that wrote it, or repeat the run"
        )
    defaults = {
        f.name for f in fields(RunRecord) if f.default is not MISSING or f.name == "environment"
    }
    for name, (accepts, wanted) in _FIELDS.items():
        if name in defaults and name not in raw:
            continue
        value = _looked_up(raw, name, path)
        if not accepts(value):
            raise ValueError(f"{path}: {name} must be {wanted}, got {value!r}; repeat the run")
    if all(value is None for value in raw["accuracy"].values()):
        raise ValueError(f"{path}: accuracy must have a number for at least one form, got none")
    known = {f.name for f in fields(RunRecord)} - {"extra"}
    extra = {name: value for name, value in raw.items() if name not in known}
    return RunRecord(**{n: v for n, v in raw.items() if n in known}, extra=extra)


def _parsed(content: bytes, path: Path) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise ValueError(
            f"{path}: not whole JSON ({error}); copy it again or repeat the run"
        ) from error


def _looked_up(raw: Mapping[str, Any], name: str, path: Path) -> Any:
    value: Any = raw
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise ValueError(f"{path}: the field {name} is missing; repeat the run")
        value = value[part]
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and math.isfinite(value) and value >= 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_bits(value: Any) -> bool:
    return _is_count(value) and 1 <= value <= 32


def _is_fraction(value: Any) -> bool:
    return _is_number(value) and value <= 1


def _or_null(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or accepts(value)


def _list_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(accepts, value))


def _object_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(accepts, value.values()))


_TEXT = (_is_text, "a text that is not empty")
_TEXT_OR_NULL = (_or_null(_is_text), "a text or null")
_BITS = (_is_bits, "a whole number from 1 to 32 (32: float)")
_BITS_OR_NULL = (_or_null(_is_bits), "a whole number from 1 to 32, or null")
_COUNT = (_is_count, "a whole number from 0")
_NUMBER = (_is_number, "a finite number from 0")
_FRACTION_OR_NULL = (_or_null(_is_fraction), "a fraction from 0 to 1, or null")
_OBJECT = (_object_of(lambda value: True), "an object")

_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "experiment": _TEXT,
    "method": _TEXT,
    "data": _TEXT,
    "model": _TEXT,
    "w_bits": _BITS,
    "a_bits": _BITS,
    "g_bits": _BITS_OR_NULL,
    "e_bits": _BITS_OR_NULL,
    "seed": _COUNT,
    "recipe": _TEXT,
    "target": _TEXT,
    "bn": _TEXT_OR_NULL,
    "procedure": _TEXT_OR_NULL,
    "epochs": _NUMBER,
    "accuracy.float": _FRACTION_OR_NULL,
    "accuracy.simulated": _FRACTION_OR_NULL,
    "accuracy.integer": _FRACTION_OR_NULL,
    "agreement.predictions": _FRACTION_OR_NULL,
    "agreement.codes": (_object_of(_is_fraction), "an object of fractions from 0 to 1, by layer"),
    "integer.float_free": (lambda value: isinstance(value, bool), "true or false"),
    "integer.float_layers": (_list_of(_is_text), "a list of layer names"),
    "integer.weight_bytes": _COUNT,
    "integer.accumulator_bits": (_object_of(_is_count), "an object of whole numbers, by layer"),
    "integer.policy": _TEXT_OR_NULL,
    "bit_operations": (_or_null(_is_count), "a whole number from 0, or null"),
    "seconds": _NUMBER,
    "device": _TEXT,
    "versions": (_object_of(_is_text), "an object of texts, by package"),
    "environment": _OBJECT,
    "references": (_list_of(_is_text), "a list of citation keys"),
    "data_source": _OBJECT,
    "config_hash": _TEXT,
    "group_hash": _TEXT,
    "finished": _TEXT,
    "commit": _TEXT_OR_NULL,
}
