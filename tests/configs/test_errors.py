"""What a user mistypes is one clear error before any step, and the exit code says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qjax.launchers.errors import plain_errors
from tests.configs.compose import composed

COMMAND = [sys.executable, "-m", "qjax.train", "+experiment=pact_w4a4"]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [*COMMAND, *words], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_bits_out_of_range_name_field_value_and_range(tmp_path: Path) -> None:
    done = run(tmp_path, "w_bits=9")
    assert done.returncode == 1
    assert "DoReFaWeight.bits must be a whole number from 1 to 8, got 9" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "nothing is written before the error"


def test_a_misspelt_key_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "w_bitz=4")
    assert done.returncode != 0 and "w_bitz" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words, message",
    [
        (["run.policy=q32"], "policy must be one of"),
        (["batch_size=0"], "batch_size must be"),
        (["epochs=-1"], "Phase.epochs must be"),
        (["model=lenet5"], "set model.image=8"),
        (["act.alpha_init=0"], "Pact.alpha_init must be a number"),
        (["optim.learning_rate=-1"], "learning_rate must be"),
    ],
)
def test_values_out_of_range(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    from qjax.train import train

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop, plain_errors():
        train(composed("+experiment=pact_w4a4", "run.progress=false", *words))
    assert stop.value.code == 1
    text = capsys.readouterr().err
    assert text.startswith("error: ") and message in text
