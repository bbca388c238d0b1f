"""Checkpoints when things go wrong: kills, damage, full disks, folders that cannot be written."""

import errno
import json
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from qjax.training import checkpoint, durable
from qjax.training.checkpoint import CheckpointError, checkpoints, restore_latest, save
from tests.training.folders import ROOT, assert_same_bits, names, run_python, save_steps, small


def test_leftovers_of_a_killed_process_are_ignored_and_removed(tmp_path):
    save_steps(tmp_path, 1)
    for name in (".writing_step_0000000002", ".removing_step_0000000000"):
        shutil.copytree(tmp_path / "step_0000000001", tmp_path / name)
    found = restore_latest(tmp_path)
    assert found is not None and found[1] == {"step": 1}
    save_steps(tmp_path, 2)
    assert sorted(os.listdir(tmp_path)) == ["step_0000000001", "step_0000000002"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_every_kind_of_damage_to_every_file_is_found(tmp_path):
    save_steps(tmp_path, 1)
    whole = checkpoints(tmp_path)[0]
    files = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    assert len(files) > 4 and durable.damage(whole) is None
    for file in files:
        for harm in (flip, truncate, Path.unlink):
            copy = tmp_path / "copy"
            shutil.copytree(whole, copy)
            harm(copy / file)
            reason = durable.damage(copy)
            assert reason is not None, (file, harm)
            assert file.name in reason or file.name == durable.MANIFEST, (file, harm, reason)
            shutil.rmtree(copy)


@pytest.mark.parametrize("harm", [flip, truncate, Path.unlink])
def test_damaged_newest_falls_back_with_a_warning_that_names_it(tmp_path, harm):
    save_steps(tmp_path, 1, 2)
    files = [p for p in (tmp_path / "step_0000000002" / "arrays").rglob("*") if p.is_file()]
    harm(max(files, key=lambda path: path.stat().st_size))
    with pytest.warns(UserWarning, match=r"step_0000000002 is damaged \(.*\); set aside"):
        found = restore_latest(tmp_path, small(0))
    assert found is not None and found[1] == {"step": 1}
    assert_same_bits(found[0], small(1))
    again = restore_latest(tmp_path, small(0))  # without a warning: they are errors here
    assert again is not None and again[1] == {"step": 1}
    save_steps(tmp_path, 2, 3)
    assert names(tmp_path) == ["step_0000000002", "step_0000000003"]


@pytest.mark.parametrize(
    "garbage", [b"", b"\xff\x00", b"[]", b'{"files": 3}', b'{"files": {"a": 1}}']
)
def test_garbled_manifest_is_damage(tmp_path, garbage):
    save_steps(tmp_path, 1)
    (tmp_path / "step_0000000001" / durable.MANIFEST).write_bytes(garbage)
    assert durable.damage(tmp_path / "step_0000000001") == "manifest.json is not readable"


def test_a_run_never_starts_over_silently_when_all_is_damaged(tmp_path):
    save_steps(tmp_path, 1)
    truncate(tmp_path / "step_0000000001" / "state.json")
    with pytest.warns(UserWarning), pytest.raises(CheckpointError, match="damaged_step_0000000001"):
        restore_latest(tmp_path)
    with pytest.raises(CheckpointError, match="no good checkpoint is left"):
        restore_latest(tmp_path)


def test_load_arrays_refuses_damage(tmp_path):
    save_steps(tmp_path, 1)
    flip(tmp_path / "step_0000000001" / "state.json")
    with pytest.raises(CheckpointError, match=r"step_0000000001 is damaged: state.json has other"):
        checkpoint.load_arrays(tmp_path / "step_0000000001")


def test_failed_write_keeps_the_last_good_one_and_leaves_nothing_behind(tmp_path, monkeypatch):
    save_steps(tmp_path, 1)

    def full(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable, "seal", full)
    message = r"step 2 .*No space left on device; the last good one is step_0000000001\. Free space"
    with pytest.raises(CheckpointError, match=message):
        save_steps(tmp_path, 2)
    assert os.listdir(tmp_path) == ["step_0000000001"]


def test_write_that_fails_inside_orbax_is_one_error(tmp_path, capfd):
    save_steps(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = {"big": np.random.default_rng(0).integers(0, 256, 1_000_000, dtype=np.uint8)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            CheckpointError, match=r"step 2 .*; the last good one is step_0000000001"
        ):
            save(tmp_path, 2, big, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path) == ["step_0000000001"]
    found = restore_latest(tmp_path, small(0))
    assert found is not None and found[1] == {"step": 1}


def test_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"step 0 in .*file/run: .*Not a directory"):
        save_steps(tmp_path / "file" / "run", 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_read_only_folder_is_a_clear_error_and_stays_readable(tmp_path):
    save_steps(tmp_path, 1)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(CheckpointError, match="Permission denied"):
            save_steps(tmp_path, 2)
        found = restore_latest(tmp_path, small(0))
        assert found is not None and found[1] == {"step": 1}
    finally:
        tmp_path.chmod(0o755)


def test_process_killed_at_random_moments_never_loses_a_saved_step():
    script = ROOT / "experiments" / "reliability" / "kill_checkpoint.py"
    outcome = json.loads(run_python(str(script), "--kills", "10"))
    assert outcome["kills"] == 10
    assert outcome["inside_a_write"] >= 1
    assert outcome["saved"] >= 1 and 1 <= len(outcome["left"]) <= 2
