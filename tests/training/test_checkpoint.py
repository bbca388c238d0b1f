"""Checkpoints come back bit for bit, for whatever a training keeps."""

import os

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from qjax.training import checkpoint
from qjax.training.checkpoint import CheckpointError, checkpoints, restore_latest, save
from qjax.training.optimizers import Adam
from tests.training.folders import assert_same_bits, names, run_python, save_steps, small

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


@pytest.mark.parametrize("keep", [1, 2, 3, 4, 9])
def test_newest_are_kept(tmp_path, keep):
    save_steps(tmp_path, *range(6), keep=keep)
    assert names(tmp_path) == [f"step_{step:010d}" for step in range(6)][-keep:]


def test_fewer_may_be_kept_later(tmp_path):
    save_steps(tmp_path, 0, 5, 10, 15)
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
