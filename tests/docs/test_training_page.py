"""What docs/training.md shows works, and what it lists is all there is."""

import dataclasses
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from qjax.train import build
from qjax.training import alarms
from qjax.training.hooks import Hooks
from qjax.training.phases import Phase
from qjax.training.state import FREEZABLE
from tests.configs.compose import TINY, composed
from tests.training.test_diagnostics import activation

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python -m qjax\.train ([^#\n]+)", PAGE, re.M)


@pytest.mark.parametrize("line", [line for line in COMMANDS if "FOLDER" not in line])
def test_commands_make_runs(line: str) -> None:
    # Of a small run, as far as the line does not say otherwise.
    assert build(composed(*TINY, *line.split())).phases


def test_the_hook_of_the_page_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    module = ModuleType("my_hooks")
    monkeypatch.setitem(sys.modules, "my_hooks", module)
    exec(compile(code, "my_hooks.py", "exec"), module.__dict__)
    values = OmegaConf.create({"label_smoothing": 0.1, "hooks": OmegaConf.create(text)})
    hooks = instantiate(values.hooks, _convert_="all")
    assert isinstance(hooks, Hooks) and hooks.loss is not None
    clip: Any = hooks.project[0]
    changed = clip({"kernel": jnp.float32([-2, 0.25]), "bias": jnp.float32(3)}, None)
    np.testing.assert_array_equal(changed["kernel"], [-0.5, 0.25])
    assert changed["bias"] == 3


def listed(heading: str) -> set[str]:
    """The words in the first column of the tables between a heading and the next."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| ([^|]*) \|", section, re.M)
    return {word for cell in cells for word in re.findall(r"`(\w+)`", cell)}


def choices(group: str) -> set[str]:
    """Files of a group of `conf`."""
    return {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}


def test_tables_list_what_there_is() -> None:
    phase = {field.name for field in dataclasses.fields(Phase)}
    assert listed("Procedures") == choices("procedure") | phase
    assert listed("Batch normalization") == choices("bn")
    assert listed("Hooks") == {field.name for field in dataclasses.fields(Hooks)}
    assert all(f"`{word}`" in PAGE for word in FREEZABLE)
    source = inspect.getsource(alarms)
    assert listed("Alarms") == set(re.findall(r"yield \(?\s*\"(\w+)\"", source))


def test_the_table_of_diagnoses_names_every_number() -> None:
    from qjax.training.diagnostics import SOURCES, statistics

    seen = activation(np.linspace(0, 4, 9, dtype=np.float32), 0, 3)
    named = {*statistics(seen, is_weight=False), *statistics(seen, is_weight=True)}
    named |= {"gradient_norm", "changed", "oscillating"}
    examples = {"alpha", "step", "low", "high", "gradient_norm_alpha"}
    assert listed("Diagnoses") == named | examples
    assert all(source in PAGE for source in SOURCES)
