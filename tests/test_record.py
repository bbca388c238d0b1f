"""The run folder: whole or absent, never of two configurations, never a silent NaN."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import qjax.record
from qjax.record import (
    Record,
    config_hash,
    environment,
    read,
    read_histograms,
    read_metrics,
    versions,
)

CONFIG = {"experiment": "pact_w4a4", "w_bits": 4, "seed": 1, "run": {"folder": "runs/a"}}


def outcome(**changes: Any) -> dict[str, Any]:
    """What a training hands to `finish`."""
    return {
        "experiment": "pact_w4a4",
        "method": "pact",
        "data": "digits",
        "model": "digits_cnn",
        "w_bits": 4,
        "a_bits": 4,
        "seed": 1,
        "recipe": "ends_8bit",
        "epochs": 2,
        "accuracy": {"float": None, "simulated": 0.97, "integer": 0.96875},
        "agreement": {"predictions": 0.9975, "codes": {"conv1": 1.0, "conv2": 0.9999}},
        "integer": {
            "float_free": True,
            "float_layers": [],
            "weight_bytes": 1234,
            "accumulator_bits": {"conv1": 18, "conv2": 21},
            "policy": "q31_even",
        },
        "seconds": 3.5,
        "device": "cpu",
        "references": ["choi2018pact"],
        "data_source": {"source": "scikit-learn", "sha256": "00"},
        **changes,
    }


def test_a_finished_run_reads_back(tmp_path: Path) -> None:
    record = Record.create(tmp_path / "run", CONFIG)
    written = record.finish(outcome(bit_operations=99, note="kept"))
    found = read(tmp_path / "run")
    assert found == written
    assert found.accuracy == {"float": None, "simulated": 0.97, "integer": 0.96875}
    assert found.integer["accumulator_bits"] == {"conv1": 18, "conv2": 21}
    assert (found.w_bits, found.seed, found.bit_operations, found.schema) == (4, 1, 99, 1)
    assert found.extra == {"note": "kept"}
    assert found.config_hash == config_hash(CONFIG)
    assert found.group_hash == config_hash(CONFIG | {"seed": 7}, with_seeds=False)
    assert set(found.versions) >= {"python", "jax", "jaxlib", "flax", "optax", "numpy", "qjax"}


def test_config_is_stored_as_plain_yaml(tmp_path: Path) -> None:
    Record.create(tmp_path, {"rates": (0.1, np.float32(0.5)), "name": "a: b", "none": None})
    stored = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert stored == {"rates": [0.1, 0.5], "name": "a: b", "none": None}


def test_no_other_file_stays_behind(tmp_path: Path) -> None:
    Record.create(tmp_path, CONFIG).finish(outcome())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "result.json"]


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record.create(tmp_path, CONFIG)
    record.finish(outcome())
    before = (tmp_path / "result.json").read_bytes()

    def broken(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("qjax.record.os.fsync", broken)
    with pytest.raises(OSError, match="disk full"):
        record.finish(outcome(seconds=9.0))
    assert (tmp_path / "result.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "result.json"]


@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_another_configuration_is_refused(tmp_path: Path, state: str) -> None:
    record = Record.create(tmp_path, CONFIG)
    if state == "finished":
        record.finish(outcome())
    with pytest.raises(ValueError, match=rf"{state} run of another .* choose another run\.folder"):
        Record.create(tmp_path, CONFIG | {"w_bits": 2})
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["w_bits"] == 4


def test_the_same_configuration_opens_again(tmp_path: Path) -> None:
    Record.create(tmp_path, CONFIG).finish(outcome())
    again = Record.create(tmp_path, CONFIG | {"run": {"folder": "elsewhere", "check_every": 5}})
    assert again.finish(outcome(seconds=4.0)).seconds == 4.0


def test_the_hash_leaves_out_what_changes_no_number() -> None:
    base = {"data": {"name": "digits", "root": None}, "run": {"folder": "a"}, "seed": 0}
    moved = {"seed": 0, "run": {"folder": "b", "progress": False}, "hydra": {"job": 3}}
    moved |= {"data": {"root": "there", "name": "digits"}, "choices": {"bn": "separate"}}
    assert config_hash(base) == config_hash(moved)


def test_the_hash_is_the_same_however_images_are_read_and_evaluated() -> None:
    usual = {"data": {"workers": 0}, "run": {"eval_batch": 256, "policy": "q31_even"}}
    other = {"data": {"workers": 8}, "run": {"eval_batch": 16, "policy": "q31_even"}}
    # As it was when both counted: earlier records keep their folders.
    assert config_hash(usual) == config_hash(other) == "1578a3859b86"


@pytest.mark.parametrize("change", [{"seed": 1}, {"data": {"name": "mnist"}}, {"bits": 4.0}])
def test_the_hash_sees_what_changes_a_number(change: dict[str, Any]) -> None:
    base = {"data": {"name": "digits"}, "seed": 0, "bits": 4}
    assert config_hash(base) != config_hash(base | change)


def test_only_seeds_are_left_out_of_a_group() -> None:
    first = {"seed": 0, "optim": {"rate": 0.1, "seed": 5}}
    second = {"seed": 1, "optim": {"rate": 0.1, "seed": 6}}
    other = {"seed": 0, "optim": {"rate": 0.2, "seed": 5}}
    assert config_hash(first, with_seeds=False) == config_hash(second, with_seeds=False)
    assert config_hash(first, with_seeds=False) != config_hash(other, with_seeds=False)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
TREES = st.recursive(
    SCALARS | st.text(st.characters(codec="ascii"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text("xyz", min_size=1), TREES, max_size=4))
def test_the_stored_configuration_keeps_its_hash(config: dict[str, Any]) -> None:
    assert config_hash(yaml.safe_load(yaml.safe_dump(config))) == config_hash(config)


def test_nan_in_a_result_is_an_error(tmp_path: Path) -> None:
    record = Record.create(tmp_path, CONFIG)
    with pytest.raises(ValueError, match=r"result\.seconds must be finite, got nan"):
        record.finish(outcome(seconds=math.nan))
    assert not (tmp_path / "result.json").exists()


def test_nan_in_a_metric_is_null_and_named(tmp_path: Path) -> None:
    record = Record.create(tmp_path, CONFIG)
    record.log(3, {"loss": np.float32("nan"), "rate": np.float32(0.5), "sqnr": math.inf})
    assert read_metrics(tmp_path) == [
        {
            "step": 3,
            "loss": None,
            "rate": 0.5,
            "sqnr": None,
            "nonfinite": {"loss": "nan", "sqnr": "inf"},
        }
    ]
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_rewinding_drops_later_and_half_written_lines(tmp_path: Path) -> None:
    record = Record.create(tmp_path, CONFIG)
    for step in (1, 2, 3):
        record.log(step, {"loss": 1 / step})
    before = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    record.rewind(2)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(before[:2])


def test_the_layer_table_is_stored_twice(tmp_path: Path) -> None:
    rows = [
        {"layer": "conv1", "bits": 8, "float": None},
        {"layer": "fc", "bits": 4, "float": "yes"},
    ]
    Record.create(tmp_path, CONFIG).write_layers(rows)
    assert json.loads((tmp_path / "layers.json").read_text()) == rows
    text = (tmp_path / "layers.txt").read_text()
    assert text == "layer  bits  float\nconv1     8\nfc        4  yes\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"w_bits": 0}, r"w_bits must be a whole number from 1 to 32 .*got 0"),
        ({"w_bits": True}, r"w_bits must be .*got True"),
        ({"experiment": ""}, r"experiment must be a text that is not empty"),
        ({"seconds": -1}, r"seconds must be a finite number from 0, got -1"),
        ({"references": "choi"}, r"references must be a list of citation keys"),
        (
            {"accuracy": {"float": None, "simulated": 97.0, "integer": 0.9}},
            r"accuracy\.simulated must be a fraction from 0 to 1, or null, got 97\.0",
        ),
        (
            {"accuracy": {"float": None, "simulated": None, "integer": None}},
            r"accuracy must have a number for at least one form",
        ),
        ({"accuracy": {"simulated": 0.9, "integer": 0.9}}, r"the field accuracy\.float is missing"),
        (
            {"agreement": {"predictions": 1.0, "codes": {"conv1": 3}}},
            r"agreement\.codes must be an object of fractions",
        ),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Record.create(tmp_path, CONFIG).finish(outcome(**changes))
    assert not (tmp_path / "result.json").exists()


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    Record.create(tmp_path, CONFIG).finish(outcome())
    path = tmp_path / "result.json"
    raw = json.loads(path.read_text())
    optional = {"schema", "g_bits", "e_bits", "bit_operations", "target", "environment"}
    optional |= {"bn", "procedure"}
    for field in set(raw) - optional:
        path.write_text(json.dumps({name: raw[name] for name in raw if name != field}))
        with pytest.raises(ValueError, match=rf"result\.json: the field {field}[ .]"):
            read(tmp_path)


def test_histograms_are_read_back_and_their_lack_is_named(tmp_path: Path) -> None:
    record = Record.create(tmp_path, CONFIG)
    with pytest.raises(FileNotFoundError, match="a quantized phase writes it"):
        read_histograms(tmp_path)
    row = {"codes": {"low": 0.0, "high": 1.0, "counts": [1, 2]}}
    for step in (1, 2):
        record.write_histograms(step, {"act.output": row})
    assert read_histograms(tmp_path) == {"step": 2, "quantizers": {"act.output": row}}


def test_broken_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with pytest.raises(FileNotFoundError, match="has not finished"):
        read(tmp_path)
    path.write_text('{"schema": 1, "exper')
    with pytest.raises(ValueError, match=r"result\.json: not whole JSON .*; copy it again"):
        read(tmp_path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="must hold one JSON object, got list"):
        read(tmp_path)
    path.write_text('{"schema": 2}')
    with pytest.raises(ValueError, match="schema must be 1, got 2"):
        read(tmp_path)


def test_arrays_are_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"result\.note must be .* got ndarray; .*tolist"):
        Record.create(tmp_path, CONFIG).finish(outcome(note=np.zeros(2)))


def test_what_the_machine_is() -> None:
    assert versions()["numpy"] == np.__version__
    assert environment()["cores"] >= 1


def test_a_copy_without_history_is_told_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qjax.record, "__file__", str(tmp_path / "qjax" / "record.py"))
    monkeypatch.setenv("QJAX_COMMIT", "0123abc")
    assert Record.create(tmp_path / "run", CONFIG).finish(outcome()).commit == "0123abc"


def test_records_need_no_jax() -> None:
    code = "import sys, qjax.record; sys.exit(any(m.split('.')[0] == 'jax' for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
