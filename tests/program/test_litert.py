"""Every operator against LiteRT's reference kernels, through a file that LiteRT runs."""

from pathlib import Path

import numpy as np
import pytest

from qjax.program.comparison import compare_tflite, random_inputs
from qjax.program.tflite import read_tflite
from qjax.program.tflite_write import write_tflite
from tests.program.litert_cases import CASES

pytest.importorskip("ai_edge_litert", reason="LiteRT is the reference; it comes with qjax[export]")


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_an_operator_equals_litert_on_random_codes(name: str, seed: int, tmp_path: Path):
    path = tmp_path / "one.tflite"
    program = CASES[name](np.random.default_rng(seed))
    write_tflite(program, path)
    result = compare_tflite(path, 4, random_inputs(seed))
    assert not result.unsupported
    (row,) = result.results
    assert row.compared > 0
    assert row.mismatched == 0, f"{row}\n{program}"
    assert read_tflite(path).operators[0].attributes() == program.operators[0].attributes()
