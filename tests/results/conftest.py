"""Small fabricated records. Their numbers are made up and belong to no run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qjax.results.schema import RunRecord, check

Raw = dict[str, Any]


def raw_record(**changes: Any) -> Raw:
    """A whole `result.json`; `simulated`, `integer` and `float` set the three accuracies.

    Unless given, the hashes follow from what a run differs in.
    """
    forms = {form: changes.pop(form, None) for form in ("float", "simulated", "integer")}
    raw: Raw = {
        "schema": 1,
        "experiment": "pact_w4a4",
        "method": "pact",
        "data": "cifar10",
        "model": "resnet20",
        "w_bits": 4,
        "a_bits": 4,
        "g_bits": None,
        "e_bits": None,
        "seed": 0,
        "recipe": "ends_float",
        "epochs": 10,
        "accuracy": forms,
        "agreement": {"predictions": 1.0, "codes": {"conv1": 1.0}},
        "integer": {
            "float_free": True,
            "float_layers": [],
            "weight_bytes": 1000,
            "accumulator_bits": {"conv1": 18},
            "policy": "q31_even",
        },
        "bit_operations": 5000,
        "seconds": 12.5,
        "device": "cpu",
        "versions": {"jax": "0.12.0"},
        "environment": {"processor": "Some CPU", "cores": 2},
        "references": ["choi2018pact"],
        "data_source": {"source": "made up"},
        "finished": "2026-01-01T00:00:00+00:00",
        "commit": "0123abc",
    }
    raw |= changes
    parts = [raw[k] for k in ("method", "data", "model", "recipe", "w_bits", "a_bits", "epochs")]
    raw.setdefault("group_hash", "-".join(map(str, parts)))
    raw.setdefault("config_hash", f"{raw['group_hash']}-{raw['seed']}")
    return raw


def make_record(**changes: Any) -> RunRecord:
    """A checked record, without a file."""
    return check(raw_record(**changes), Path("result.json"))


@pytest.fixture(name="make_record")
def make_record_fixture() -> Callable[..., RunRecord]:
    """Makes a checked record, without a file."""
    return make_record


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes a record into `tmp_path/<folder>` and returns the folder."""

    def save_record(folder: str, **changes: Any) -> Path:
        path = tmp_path / folder / "result.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(raw_record(**changes)), encoding="utf-8")
        return path.parent

    return save_record
