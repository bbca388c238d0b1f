"""Random networks agree in every form; `experiments/reliability/random_networks.py` tries more."""

from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from experiments.reliability.random_networks import (
    RandomNetwork,
    compare,
    failed,
    pruned,
    recipe_of,
)

FILES = ("onnx", "tflite")


def check(seed: int, forms: tuple[str, ...], folder: Path) -> None:
    counts = compare(seed, forms, folder)
    assert counts["networks"] == 1 and counts["codes"] > 500
    assert not failed(counts), counts


@pytest.mark.parametrize("seed", range(1000, 1010))
def test_simulated_integer_and_program_agree(seed: int, tmp_path: Path):
    check(seed, ("program",), tmp_path)


@pytest.mark.parametrize("seed", [2000, 2001])
def test_files_agree_with_their_runtimes(seed: int, tmp_path: Path):
    check(seed, FILES, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3000, 3024))
def test_more_networks_agree_in_every_form(seed: int, tmp_path: Path):
    check(seed, FILES, tmp_path)


def test_seeds_cover_every_kind_of_layer_and_recipe():
    kinds, bits, symmetric = set(), set(), set()
    for seed in range(40):
        model = nnx.eval_shape(lambda seed=seed: RandomNetwork(seed))
        kinds |= {block.kind for block in model.blocks}
        rules = pruned(recipe_of(np.random.default_rng((seed, 1))), model).rules
        bits |= {rule.weight.bits for rule in rules if rule.weight}  # pyright: ignore
        symmetric |= {rule.weight.symmetric for rule in rules if rule.weight}  # pyright: ignore
    assert {"conv", "depthwise", "add", "concat", "max_pool", "average_pool"} <= kinds
    assert bits == set(range(2, 9)) and symmetric == {True, False}
