"""Checkpoints that a killed run can trust: arrays through Orbax, integrity of our own.

A checkpoint is a folder `step_0000001200` with `arrays/` (Orbax), `state.json` (metadata) and
`manifest.json` (size and SHA-256 of every file). It is written under another name, flushed to the
disk, and renamed in one step, so that a folder of the final name is whole whenever the process
dies. Hashes are checked before anything is read: a damaged checkpoint is set aside with a warning,
and the one before is used.

Saving is synchronous: when `save` returns, the checkpoint would survive a power cut. With several
processes all call it, and the first writes; arrays must be replicated.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from qjax.training import checks, durable, leaves

FORMAT = 1
_NAME = re.compile(r"step_(\d+)(?:\.(\d+))?")


class CheckpointError(OSError):
    """A checkpoint cannot be written or read; the message says which, why, and what to do."""


def save(
    folder: str | Path, step: int, tree: PyTree, metadata: Mapping[str, Any], keep: int = 2
) -> Path | None:
    """Saves a tree of arrays; older checkpoints beyond `keep` go once the new one is safe.

    Args:
        folder: of the run's checkpoints, one run each; made if missing.
        step: number of updates made, >= 0; not below that of the newest checkpoint. The same step
            again replaces the earlier one.
        tree: jax or numpy arrays of any dtype, typed random keys, Python numbers.
        metadata: what JSON can hold (epoch, phase, configuration hash); tuples come back as lists.
        keep: how many of the newest to keep, >= 1. From 2 on, a damaged newest one has a
            predecessor.

    Returns:
        The checkpoint's folder; None in other processes than the first.

    Raises:
        CheckpointError: the disk is full or the folder read-only; earlier checkpoints stay.
        TypeError: a leaf that is no array of numbers, or metadata that JSON cannot hold.
        ValueError: step or keep out of range, or a later checkpoint is there.
    """
    checks.whole("step", step, least=0)
    checks.whole("keep", keep, least=1)
    arrays, notes = leaves.to_host(tree)
    state = {"format": FORMAT, "step": step, "metadata": dict(metadata), "notes": notes}
    try:
        json.dumps(state)
    except TypeError as error:
        raise TypeError(f"metadata must be numbers, strings, lists and dicts: {error}") from error
    if jax.process_index() != 0:
        return None
    folder = Path(folder).absolute()
    present = checkpoints(folder)
    if present and _order(present[-1]) >= (step + 1, 0):
        raise ValueError(
            f"step must not be below that of the newest checkpoint, {present[-1]}, got {step};"
            " resume from that one or use another folder"
        )
    target = _write(folder, step, arrays, state)
    _remove_old(folder, target, keep)
    return target


def restore_latest(
    folder: str | Path, like: PyTree | None = None
) -> tuple[Any, dict[str, Any]] | None:
    """Reads the newest good checkpoint.

    Args:
        folder: of the run's checkpoints.
        like: a tree of the wanted structure, shapes and dtypes: jax arrays or
            `jax.ShapeDtypeStruct` (their shardings are used, so the number of devices may differ
            from that of the saving run), numpy arrays, Python numbers.

    Returns:
        The tree, bit-identical, and the metadata; without `like` a dict of numpy arrays by path,
        as from `load_arrays`. None if the folder holds no checkpoint.

    Raises:
        CheckpointError: all checkpoints are damaged, or files cannot be read.
        ValueError: the checkpoint does not fit `like`.

    Warns:
        UserWarning: a damaged checkpoint was passed over; it is renamed to `damaged_...`.
    """
    folder = Path(folder).absolute()
    for path in reversed(checkpoints(folder)):
        reason = _damage(path)
        if reason is None:
            arrays, state = _read(path)
            tree = arrays if like is None else leaves.to_tree(arrays, state["notes"], like)
            return tree, state["metadata"]
        warnings.warn(
            f"checkpoint {path} is damaged ({reason}); set aside, using the one before",
            stacklevel=2,
        )
        _set_aside(path)
    damaged = sorted(path.name for path in folder.glob("damaged_*"))
    if damaged or checkpoints(folder):
        raise CheckpointError(
            f"no good checkpoint is left in {folder}; damaged: {', '.join(damaged) or 'all'}."
            " Start the run again in another folder."
        )
    return None


def load_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of one checkpoint, without a model.

    Args:
        path: of one checkpoint, e.g. `checkpoints(folder)[-1]`.

    Returns:
        Numpy arrays by path of the leaf, joined by `/`; a typed random key as its uint32 data.

    Raises:
        CheckpointError: missing, damaged or unreadable.
    """
    path = Path(path).absolute()
    reason = _damage(path)
    if reason is not None:
        raise CheckpointError(f"checkpoint {path} is damaged: {reason}")
    return _read(path)[0]


def checkpoints(folder: str | Path) -> list[Path]:
    """The finished checkpoints of a folder, oldest first, damaged or not.

    Args:
        folder: of a run's checkpoints; may be missing.

    Returns:
        Paths of their folders.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if _NAME.fullmatch(p.name)), key=_order)


def _write(folder: Path, step: int, arrays: dict[str, np.ndarray], state: dict[str, Any]) -> Path:
    """Writes a checkpoint under another name, and renames it when the disk has all of it."""
    target = _free_name(folder, step)
    writing = folder / f".writing_{target.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        writing.mkdir()
        _write_arrays(writing / "arrays", arrays)
        durable.write_json(writing / "state.json", state)
        durable.seal(writing)
        writing.rename(target)
        durable.sync(folder)
    except Exception as error:  # Orbax reports a full disk in several types
        shutil.rmtree(writing, ignore_errors=True)
        present = checkpoints(folder)
        good = f"the last good one is {present[-1].name}" if present else "there is none yet"
        reason = error if isinstance(error, OSError) else str(error).rsplit(": ", 1)[-1]
        raise CheckpointError(
            f"cannot write the checkpoint of step {step} in {folder}: {reason}; {good}."
            " Free space or make the folder writable, then resume."
        ) from error
    return target


def _order(path: Path) -> tuple[int, int]:
    """Step, then attempt: a step saved again has an attempt number until it replaces the first."""
    found = _NAME.fullmatch(path.name)
    assert found is not None, path
    return int(found[1]), int(found[2] or 0)


def _free_name(folder: Path, step: int) -> Path:
    attempts = [attempt for s, attempt in map(_order, checkpoints(folder)) if s == step]
    suffix = f".{max(attempts) + 1}" if attempts else ""
    return folder / f"step_{step:010d}{suffix}"


def _remove_leftovers(folder: Path) -> None:
    """Removes what a killed process was writing or removing."""
    for pattern in (".writing_*", ".removing_*"):
        for path in folder.glob(pattern):
            shutil.rmtree(path)


def _remove_old(folder: Path, newest: Path, keep: int) -> None:
    """Keeps the newest checkpoints, one for each step."""
    step = _order(newest)[0]
    earlier = [path for path in checkpoints(folder) if path != newest]
    others = [path for path in earlier if _order(path)[0] != step]
    kept = others[-(keep - 1) :] if keep > 1 else []
    for path in earlier:
        if path not in kept:
            # Renamed first: half removed, it must not look like a checkpoint.
            gone = path.rename(path.with_name(f".removing_{path.name}"))
            shutil.rmtree(gone, ignore_errors=True)


def _set_aside(path: Path) -> None:
    """Renames a damaged checkpoint, so that it neither counts nor warns again."""
    if jax.process_index() != 0:
        return
    target = path.with_name(f"damaged_{path.name}")
    try:
        shutil.rmtree(target, ignore_errors=True)
        path.rename(target)
    except OSError:
        return  # a read-only folder can still be evaluated from


def _damage(path: Path) -> str | None:
    try:
        return durable.damage(path)
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoint {path}: {error}") from error


def _orbax() -> Any:
    """An Orbax checkpointer of this process alone; imported late, since it takes a while."""
    import orbax.checkpoint as ocp

    own = jax.process_index()
    options: Any = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:
        options = ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"qjax{own}"
        )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    if not arrays:
        return
    # Orbax logs a failure with the traces of all its threads, beside raising it.
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with _orbax() as checkpointer:
            checkpointer.save(path, arrays)
    finally:
        logger.setLevel(level)


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and state of a checkpoint whose hashes are right."""
    state = json.loads((path / "state.json").read_bytes())
    if state["format"] != FORMAT:
        raise CheckpointError(
            f"checkpoint {path} has format {state['format']}, this version reads {FORMAT};"
            " use the version of qjax that wrote it"
        )
    arrays = {}
    if (path / "arrays").exists():
        with _orbax() as checkpointer:
            arrays = checkpointer.restore(path / "arrays")
    return leaves.with_empty(arrays, state["notes"]), state
