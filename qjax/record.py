"""The run folder: what one run leaves behind, written so that a killed run never looks finished.

    folder/
      config.yaml     the resolved configuration
      layers.json     the layer table, one object a row; layers.txt: the same, aligned for reading
      metrics.jsonl   one JSON object a line, each with an integer `step`
      histograms.json counts of each quantizer's values and codes at the last diagnosis
      result.json     the outcome; its presence means that the run is finished

Tables, figures and notebooks read these files and nothing else, so this module imports no JAX.
What `result.json` holds is told in `qjax/results/schema.py`, which reads it too.

Example:
    >>> config_hash({"w_bits": 4, "seed": 0, "run": {"folder": "runs/a"}})
    '3a50c6b76570'
    >>> config_hash({"run": {"folder": "runs/b"}, "seed": 0, "w_bits": 4})
    '3a50c6b76570'
"""

import hashlib
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from qjax.results.schema import SCHEMA, RunRecord, check, read, read_histograms, read_metrics

__all__ = [
    "NOT_HASHED",
    "Record",
    "RunRecord",
    "config_hash",
    "environment",
    "read",
    "read_histograms",
    "read_metrics",
    "versions",
]

NOT_HASHED = (
    "hydra",
    "choices",
    "data.root",
    "data.workers",
    "run.folder",
    "run.repeat",
    "run.resume",
    "run.eval_batch",
    "run.check_every",
    "run.checkpoint_every",
    "run.checkpoint_minutes",
    "run.diagnose_every",
    "run.devices",
    "run.distributed",
    "run.steps_per_call",
    "run.tensorboard",
    "run.progress",
)
"""Settings that say where, on how much or how loudly a run works, never what it computes; names of
what other keys hold."""

HASHED_AS = {"data.workers": 0, "run.eval_batch": 256}
"""What was part of a run's identity once: hashed as its default, so that earlier hashes hold."""


class Record:
    """Writes one run folder; every file but the growing `metrics.jsonl` appears whole or never."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.folder = folder
        self.config = config

    @classmethod
    def create(cls, folder: str | Path, config: Mapping[str, Any]) -> "Record":
        """Opens `folder` for a run of `config` (plain resolved values) and writes `config.yaml`.

        A folder of the same configuration is opened again, to resume or to repeat its run.

        Raises:
            ValueError: the folder holds a run of another configuration.
        """
        path = Path(folder)
        plain = _plain(config, "config")
        earlier = _hash_in(path)
        if earlier is not None and earlier != config_hash(plain):
            state = "a finished" if (path / "result.json").exists() else "an unfinished"
            raise ValueError(
                f"run.folder: {path} holds {state} run of another configuration ({earlier}; this "
                f"one is {config_hash(plain)}); choose another run.folder, or delete that one"
            )
        path.mkdir(parents=True, exist_ok=True)
        _write(path / "config.yaml", yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
        return cls(path, plain)

    def write_layers(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Stores the layer table: one mapping a layer, the columns in the order of the first."""
        plain = _plain(rows, "layers")
        _write(self.folder / "layers.json", _json(plain))
        _write(self.folder / "layers.txt", _aligned(plain))

    def write_histograms(self, step: int, quantizers: Mapping[str, Any]) -> None:
        """Stores the counts of a diagnosis, in place of those of an earlier one."""
        plain = _plain({"step": step, "quantizers": quantizers}, "histograms")
        _write(self.folder / "histograms.json", json.dumps(plain) + "\n")

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends a line of metrics; a NaN or infinity becomes null and is named in `nonfinite`."""
        values = {name: _item(value) for name, value in metrics.items()}
        nonfinite = {name: str(value) for name, value in values.items() if _is_nonfinite(value)}
        line = {"step": step, **values, **dict.fromkeys(nonfinite)}
        if nonfinite:
            line["nonfinite"] = nonfinite
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(line, "metrics")) + "\n")

    def rewind(self, step: int) -> None:
        """Drops the metrics after `step` and a half-written last line: call it when resuming."""
        kept = [line for line in read_metrics(self.folder) if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        _write(self.folder / "metrics.jsonl", text)

    def finish(self, result: Mapping[str, Any]) -> RunRecord:
        """Checks the outcome, completes it (hashes, versions, time, commit), writes `result.json`.

        Raises:
            ValueError: a field is missing, of the wrong kind, out of range or not finite.
        """
        completed = {
            "commit": _commit(),
            "versions": versions(),
            "environment": environment(),
            **_plain(result, "result"),
            "schema": SCHEMA,
            "config_hash": config_hash(self.config),
            "group_hash": config_hash(self.config, with_seeds=False),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        path = self.folder / "result.json"
        record = check(completed, path)
        layout = asdict(record)
        extra = layout.pop("extra")
        _write(path, _json(layout | extra))
        return record


def config_hash(config: Mapping[str, Any], *, with_seeds: bool = True) -> str:
    """Names a resolved configuration by 12 hexadecimal digits, whatever the order of its keys.

    Left out is what cannot change a result (folders, logging, progress, checkpoint intervals,
    batches of evaluation, Hydra's own settings) and, without seeds, every key called `seed`.
    """
    kept = _kept(_plain(config, "config"), "", with_seeds)
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def versions() -> dict[str, str]:
    """Versions of Python and the packages that numbers depend on, read without importing them."""
    found = {"python": platform.python_version()}
    for package in ("jax", "jaxlib", "flax", "optax", "numpy", "qjax"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def environment() -> dict[str, Any]:
    """The machine as far as timings depend on it: operating system, processor, usable cores."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _commit() -> str | None:
    """The checkout's commit, with `-dirty` where tracked files differ; outside a checkout what the
    environment variable QJAX_COMMIT says (a copy on a cluster), else None.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return os.environ.get("QJAX_COMMIT") or None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def _hash_in(folder: Path) -> str | None:
    """The hash of the run that `folder` holds; None when it holds none."""
    if (folder / "result.json").exists():
        return read(folder).config_hash
    path = folder / "config.yaml"
    if not path.exists():
        return None
    return config_hash(yaml.safe_load(path.read_text(encoding="utf-8")))


def _kept(value: Any, name: str, with_seeds: bool) -> Any:
    if isinstance(value, list):
        return [_kept(item, name, with_seeds) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, item in value.items():
        full = f"{name}.{key}" if name else str(key)
        if full in HASHED_AS:
            kept[key] = HASHED_AS[full]
        elif full not in NOT_HASHED and (with_seeds or key != "seed"):
            kept[key] = _kept(item, full, with_seeds)
    return kept


def _item(value: Any) -> Any:
    """A Python number for a scalar array of any library; anything else as it is."""
    return value.item() if getattr(value, "shape", None) == () else value


def _is_nonfinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _plain(value: Any, name: str) -> Any:
    """Copies `value` as what JSON and YAML can hold; `name` is the path for errors."""
    value = _item(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{name}[{index}]") for index, item in enumerate(value)]
    if _is_nonfinite(value):
        raise ValueError(f"{name} must be finite, got {value}; write None where there is no number")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(
        f"{name} must be a text, number, list, mapping or None, got {type(value).__name__}; "
        "convert it first (arrays: tolist())"
    )


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _aligned(rows: list[dict[str, Any]]) -> str:
    """A plain-text table: numbers to the right, all else to the left."""
    if not rows:
        return "(no layers)\n"
    columns = [
        (name, *("" if r.get(name) is None else str(r[name]) for r in rows)) for name in rows[0]
    ]
    widths = [max(map(len, column)) for column in columns]
    numeric = [all(isinstance(r.get(c[0]), int | float | None) for r in rows) for c in columns]
    lines = []
    for cells in zip(*columns, strict=True):
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, numeric, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    """Writes beside the target and renames, so that no reader ever meets half a file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
