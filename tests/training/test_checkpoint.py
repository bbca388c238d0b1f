"""Checkpoints: bit-identical, atomic, checked by hash, and clear about what went wrong."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from qjax.training import checkpoint, durable
from qjax.training.checkpoint import CheckpointError, checkpoints, restore_latest, save
from qjax.training.optimizers import Adam

ROOT = Path(__file__).parents[2]


def small(step: int) -> dict[str, Any]:
    return {"w": jnp.arange(6, dtype=jnp.float32).reshape(2, 3) + step, "n": jnp.int32(step)}


def save_steps(folder: Path, *steps: int, keep: int = 2) -> None:
    for step in steps:
        save(folder, step, small(step), {"step": step}, keep=keep)


def names(folder: Path) -> list[str]:
    return [path.name for path in checkpoints(folder)]


def assert_same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert type(a) is type(b)
        if isinstance(b, jax.Array) and jnp.issubdtype(b.dtype, jax.dtypes.prng_key):
            assert a.dtype == b.dtype
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


DTYPES = [
    np.bool_,
    np.int8,
    np.uint8,
    np.int32,
    np.uint32,
    np.int64,
    np.float16,
    np.float32,
    np.float64,
    ml_dtypes.bfloat16,
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.int4,
]


def test_numpy_arrays_of_every_dtype_come_back_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    tree = {np.dtype(d).name: rng.integers(-3, 4, (5, 3)).astype(d) for d in DTYPES}
    tree["negative zeros"] = np.full((4, 4), -0.0, np.float32)
    tree["odd bits"] = np.asarray([0x7F800001, 0xFFC12345, 0x00000001], np.uint32).view(np.float32)
    save(tmp_path, 0, tree, {})
    found = restore_latest(tmp_path, tree)
    assert found is not None
    assert_same_bits(found[0], tree)


def test_training_state_comes_back_bit_for_bit(tmp_path):
    module = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    params = nnx.state(module, nnx.Param)
    labels = jax.tree.map(lambda _: "weight", params)
    tree = {
        "params": params,
        "optimizer": Adam(0.1).build(10, 2, labels).init(params),
        "key": jax.random.key(3),
        "keys": jax.random.split(jax.random.key(1, impl="rbg"), 3),
        "half": jnp.linspace(-1, 1, 7, dtype=jnp.bfloat16),
        "codes": jnp.arange(-8, 8, dtype=jnp.int8),
        "nothing": jnp.zeros((0, 3)),
        "numbers": (3, 0.1, True),
        "none": None,
        "a/b": {"c.d": np.float32(1.5)},
    }
    save(tmp_path, 7, tree, {"epoch": 2, "phase": "float", "history": [0.5, None]})
    found = restore_latest(tmp_path, jax.tree.map(lambda x: x, tree))
    assert found is not None
    tree["a/b"]["c.d"] = np.asarray(np.float32(1.5))  # a numpy scalar comes back as an array
    assert_same_bits(found[0], tree)
    assert found[1] == {"epoch": 2, "phase": "float", "history": [0.5, None]}


def test_shapes_alone_are_enough_to_restore(tmp_path):
    save_steps(tmp_path, 3)
    like = jax.eval_shape(lambda: small(0))
    found = restore_latest(tmp_path, like)
    assert found is not None
    assert_same_bits(found[0], small(3))


def test_restored_arrays_do_not_share_memory_and_may_be_donated(tmp_path):
    save_steps(tmp_path, 3)
    found = restore_latest(tmp_path, small(0))
    assert found is not None
    after = jax.jit(lambda t: jax.tree.map(lambda x: x + 1, t), donate_argnums=0)(found[0])
    assert_same_bits(after, small(4))


def test_arrays_by_path_without_a_model(tmp_path):
    save(tmp_path, 0, {"a": [np.ones(2), {"b": np.zeros((0, 2))}], "key": jax.random.key(5)}, {})
    arrays = checkpoint.load_arrays(checkpoints(tmp_path)[-1])
    assert sorted(arrays) == ["a/0", "a/1/b", "key"]
    assert arrays["a/1/b"].shape == (0, 2)
    np.testing.assert_array_equal(arrays["key"], np.asarray([0, 5], np.uint32))
    found = restore_latest(tmp_path)
    assert found is not None and sorted(found[0]) == sorted(arrays)


def test_tree_without_arrays(tmp_path):
    save(tmp_path, 0, {}, {"epoch": 1})
    assert restore_latest(tmp_path, {}) == ({}, {"epoch": 1})


def test_no_checkpoint_is_none(tmp_path):
    assert restore_latest(tmp_path / "missing") is None
    assert restore_latest(tmp_path) is None


def test_newest_are_kept(tmp_path):
    save_steps(tmp_path, 0, 5, 10, 15)
    assert names(tmp_path) == ["step_0000000010", "step_0000000015"]
    save_steps(tmp_path, 20, keep=1)
    assert names(tmp_path) == ["step_0000000020"]


def test_same_step_again_replaces_the_first(tmp_path):
    save_steps(tmp_path, 1, 2)
    save(tmp_path, 2, small(99), {"again": True})
    found = restore_latest(tmp_path, small(0))
    assert found is not None and found[1] == {"again": True}
    assert_same_bits(found[0], small(99))
    save(tmp_path, 2, small(98), {"again": 2})
    assert [int(path.name[5:15]) for path in checkpoints(tmp_path)] == [1, 2]


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


def test_later_checkpoint_in_the_folder_is_an_error(tmp_path):
    save_steps(tmp_path, 5)
    with pytest.raises(ValueError, match=r"step must not be below .*step_0000000005, got 4"):
        save_steps(tmp_path, 4)


def test_checkpoint_of_another_model_is_an_error_that_lists_the_differences(tmp_path):
    save_steps(tmp_path, 1)
    like = {"w": jnp.zeros((2, 4)), "n": jnp.float32(0), "new": jnp.zeros(1)}
    with pytest.raises(ValueError, match="another model or optimizer") as caught:
        restore_latest(tmp_path, like)
    message = str(caught.value)
    assert "new is not in the checkpoint" in message
    assert "w is float32[2, 3] in the checkpoint, float32[2, 4] in the run" in message
    assert "n is int32[] in the checkpoint, float32[] in the run" in message
    with pytest.raises(ValueError, match="n is only in the checkpoint"):
        restore_latest(tmp_path, {"w": jnp.zeros((2, 3))})
    assert names(tmp_path) == ["step_0000000001"]


@pytest.mark.parametrize(
    ("leaf", "shown"), [("text", "str"), (object(), "object"), (np.asarray(["a"]), "ndarray")]
)
def test_leaf_that_is_no_array_is_named(tmp_path, leaf, shown):
    with pytest.raises(TypeError, match=f"a/b must be an array of numbers, got {shown}"):
        save(tmp_path, 0, {"a": {"b": leaf}}, {})
    assert not os.listdir(tmp_path)


def test_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match="step must be a whole number of at least 0, got -1"):
        save(tmp_path, -1, {}, {})
    with pytest.raises(ValueError, match="keep must be a whole number of at least 1, got 0"):
        save(tmp_path, 0, {}, {}, keep=0)
    with pytest.raises(TypeError, match="metadata must be numbers, strings, lists and dicts"):
        save(tmp_path, 0, {}, {"path": tmp_path})
    assert not os.listdir(tmp_path)


def test_other_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    save_steps(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="has format 2, this version reads 1"):
        restore_latest(tmp_path)


FOUR_DEVICES = """
import sys, jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from qjax.training import checkpoint
assert len(jax.devices()) == 4
mesh = Mesh(np.array(jax.devices()), ("data",))
sharding = NamedSharding(mesh, PartitionSpec("data"))
like = {"w": jax.device_put(np.zeros((8, 3), np.float32), sharding)}
tree, metadata = checkpoint.restore_latest(sys.argv[1], like)
assert tree["w"].sharding == sharding, tree["w"].sharding
checkpoint.save(sys.argv[1], 2, {"w": tree["w"] + 1}, {"devices": 4})
"""


def run_python(*arguments: str, **environment: str) -> str:
    finished = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_number_of_devices_may_differ_in_both_directions(tmp_path):
    tree = {"w": jnp.arange(24, dtype=jnp.float32).reshape(8, 3)}
    save(tmp_path, 1, tree, {})
    flags = "--xla_force_host_platform_device_count=4"
    run_python("-c", FOUR_DEVICES, str(tmp_path), XLA_FLAGS=flags)
    found = restore_latest(tmp_path, tree)
    assert found is not None and found[1] == {"devices": 4}
    assert_same_bits(found[0], {"w": tree["w"] + 1})


def test_import_loads_neither_orbax_nor_a_device():
    code = """
import sys, jax, qjax.training.checkpoint
assert "orbax.checkpoint" not in sys.modules
assert not jax._src.xla_bridge._backends
"""
    run_python("-c", code)


def test_process_killed_at_random_moments_never_loses_a_saved_step():
    script = ROOT / "experiments" / "reliability" / "kill_checkpoint.py"
    outcome = json.loads(run_python(str(script), "--kills", "10", "--longest", "0.2"))
    assert outcome["kills"] == 10
    assert outcome["inside_a_write"] >= 1
    assert outcome["saved"] >= 1 and 1 <= len(outcome["left"]) <= 2
