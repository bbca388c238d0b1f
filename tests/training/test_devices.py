"""A batch shared by several devices, of one process or of two, gives what one device gives."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from qjax.record import read, read_metrics
from qjax.train import plan
from qjax.training.checkpoint import checkpoints, load_arrays
from qjax.training.devices import AUTO, ONE, connect, find_devices
from tests.configs.compose import TINY, composed
from tests.data.photos import made_up
from tests.training import sharded
from tests.training.folders import ROOT

# Sums over a batch in another order: some last bits of float32, no more.
CLOSE: dict[str, Any] = {"rtol": 2e-5, "atol": 2e-6}


def start(work: str, folder: Path, devices: int, **more: str) -> subprocess.Popen[str]:
    """The program on so many simulated CPU devices of its own."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags} | more
    command = [sys.executable, "-m", "tests.training.sharded", work, str(folder), "all"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


def finish(*processes: subprocess.Popen[str]) -> None:
    """Wait for them; all must end well."""
    try:
        for process in processes:
            output, _ = process.communicate(timeout=500)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()


def two_processes(work: str, folder: Path, devices: int) -> list[subprocess.Popen[str]]:
    """The program twice, with so many devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    job = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    return [start(work, folder, devices, JAX_PROCESS_ID=str(i), **job) for i in range(2)]


def assert_close(folder: Path, expected: Path) -> None:
    """The newest checkpoints hold nearly the same numbers; keys and counts are equal."""
    one, two = (load_arrays(checkpoints(path)[-1]) for path in (folder, expected))
    assert one.keys() == two.keys()
    for name, array in one.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(array, two[name], **CLOSE, err_msg=name)
        else:
            np.testing.assert_array_equal(array, two[name], name)


def assert_same_run(folder: Path, expected: Path) -> None:
    """Nearly the same metrics, weights and accuracies."""
    assert_close(folder / "checkpoints", expected / "checkpoints")
    lines = [read_metrics(path) for path in (folder, expected)]
    assert [line["step"] for line in lines[0]] == [7, 14, 21, 28]
    for one, two in zip(*lines, strict=True):
        for key in ("loss", "train_accuracy", "test_accuracy"):
            np.testing.assert_allclose(one[key], two[key], **CLOSE)
    found, wanted = read(folder), read(expected)
    assert found.accuracy == wanted.accuracy and found.integer == wanted.integer
    assert found.agreement == wanted.agreement


def test_four_devices_train_as_one(tmp_path):
    started = start("steps", tmp_path / "four", 4)
    sharded.steps(tmp_path / "one", 1)
    finish(started)
    assert_close(tmp_path / "four", tmp_path / "one")
    states = [checkpoints(tmp_path / name)[-1] / "state.json" for name in ("four", "one")]
    epochs = [json.loads(path.read_text())["metadata"]["epochs"] for path in states]
    np.testing.assert_allclose(*epochs, **CLOSE)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run on one device."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    sharded.run(folder, 1)
    return folder


@pytest.mark.slow
def test_two_processes_train_as_one_device(tmp_path, alone):
    finish(*two_processes("run", tmp_path / "run", 1))
    assert_same_run(tmp_path / "run", alone)
    assert read(tmp_path / "run").device.startswith("2 x ")
    # Process 0 alone wrote.
    assert len(list((tmp_path / "run" / "events").iterdir())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_another_number_of_devices_goes_on(tmp_path, alone):
    folder = tmp_path / "run"
    finish(*two_processes("half", folder, 2))
    assert [path.name for path in checkpoints(folder / "checkpoints")] == ["step_0000000007"]
    finish(start("run", folder, 2))
    assert_same_run(folder, alone)


@pytest.mark.slow
def test_two_processes_resume(tmp_path, alone):
    folder = tmp_path / "run"
    finish(start("half", folder, 2))
    finish(*two_processes("run", folder, 1))
    assert_same_run(folder, alone)


@pytest.mark.slow
def test_each_process_decodes_its_part(tmp_path):
    folders = [made_up(tmp_path / name) for name in ("one", "two")]
    sharded.files(folders[0], 1)
    finish(*two_processes("files", folders[1], 2))
    one, two = (np.load(folder / "found.npz") for folder in folders)
    for name in ("epochs", "kernels"):
        np.testing.assert_allclose(one[name], two[name], **CLOSE)


@pytest.mark.slow
def test_a_failure_of_the_first_ends_both(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 7\n")
    begin = time.monotonic()
    processes = two_processes("run", tmp_path, 1)
    outputs = [process.communicate(timeout=500)[0] for process in processes]
    assert "holds an unfinished run of another configuration" in outputs[0]
    assert processes[0].returncode == 1 and processes[1].returncode != 0
    # JAX alone waits 300 s for a process that has not said goodbye.
    assert time.monotonic() - begin < 250


def pretend(monkeypatch: pytest.MonkeyPatch, devices: int, processes: int = 1) -> None:
    """Let JAX find so many devices and processes."""
    monkeypatch.setattr(jax, "devices", lambda: jax.local_devices() * devices)
    monkeypatch.setattr(jax, "process_count", lambda: processes)


def test_one_device_unless_asked(monkeypatch):
    pretend(monkeypatch, 4)
    assert find_devices(AUTO, 6) == find_devices(1, 6) == ONE
    assert ONE.count == 1


@pytest.mark.parametrize(
    ("wanted", "batch", "processes", "message"),
    [
        (5, 8, 1, "run.devices must be at most 4, .* got 5"),
        ("all", 6, 1, "batch_size must be a multiple of the 4 devices .* got 6; take 4 or 8"),
        (3, 2, 1, "batch_size must be a multiple of the 3 .* got 2; take 3"),
        (2, 8, 2, "run.devices must be all or 4, the devices of all 2 processes, got 2"),
        ("auto", 6, 2, "batch_size must be a multiple of the 4 devices"),
    ],
)
def test_what_devices_cannot_do_is_said(wanted, batch, processes, message, monkeypatch):
    pretend(monkeypatch, 4, processes)
    with pytest.raises(ValueError, match=message):
        find_devices(wanted, batch)


@pytest.mark.parametrize("value", ["0", "-1", "most"])
def test_other_words_are_named(value):
    with pytest.raises(ValueError, match="devices must be auto, all or a whole number from 1"):
        plan(composed(*TINY, f"run.devices={value}"))


def test_a_job_that_is_no_job_is_said(monkeypatch):
    for name in ("COORDINATOR_ADDRESS", "NUM_PROCESSES", "PROCESS_ID"):
        monkeypatch.delenv(f"JAX_{name}", raising=False)
    with pytest.raises(ValueError, match="start them with srun, or set JAX_COORDINATOR_ADDRESS"):
        connect()
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    with pytest.raises(ValueError, match="JAX_NUM_PROCESSES must be a whole number, got 'two'"):
        connect()
