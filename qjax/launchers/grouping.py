"""Which jobs of a sweep can use one compilation: those that differ in traced numbers only.

Traced are the seed, what the quantizers' `kinds` call traced (bits, decays), and what the
optimizers list in `traced` (learning rate, weight decay). Everything else must be equal: data,
model, recipe, schedule, number of steps.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Hashable, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from qjax.training.programs import untraced

NAMES = ("experiment", "method", "choices")
KNOBS = ("seed", "w_bits", "a_bits", "e_bits", "g_bits")
PARTS = ("recipe", "procedure", "hooks", "target")
CHOICES = ("weight", "act", "error", "optim")
"""Top-level keys that decide nothing by themselves: names in the record, numbers and choices that
act through the `PARTS` which refer to them, and these, which are compared as values."""


def groups(configs: Sequence[DictConfig]) -> dict[Hashable, list[int]]:
    """Positions of the configurations by signature: those together that can use one compilation.

    A configuration that cannot be built is a group of its own: its job will say why.

    Args:
        configs: resolvable, Hydra's part included.
    """
    found: dict[Hashable, list[int]] = {}
    for index, config in enumerate(configs):
        try:
            key: Hashable = signature(config)
            hash(key)
        except Exception:
            key = object()
        found.setdefault(key, []).append(index)
    return found


def signature(config: DictConfig) -> Hashable:
    """All of a run's configuration but what is traced; equal for runs that compile equal
    programs.
    """
    HydraConfig.instance().set_config(config)
    task = config.copy()
    with open_dict(task):
        del task["hydra"]
    plain = OmegaConf.to_container(task, resolve=True)
    assert isinstance(plain, dict)
    compared = {key: plain[key] for key in plain.keys() - {*NAMES, *KNOBS, *PARTS, *CHOICES, "run"}}
    values = [instantiate(task[part], _convert_="all") for part in PARTS if part in task]
    # The rest of `run` says where records go and how loudly.
    computed = task.run.policy, task.run.eval_batch
    return json.dumps(compared, sort_keys=True), computed, without_traced(values)


def without_traced(value: Any) -> Hashable:
    """A value, lists and dataclasses within it included, without its traced numbers.

    Args:
        value: as Hydra instantiates it.
    """
    if isinstance(value, dict):
        return tuple((key, without_traced(item)) for key, item in sorted(value.items()))
    if isinstance(value, list | tuple):
        return tuple(without_traced(item) for item in value)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    if (stripped := getattr(value, "stripped", None)) is not None:
        return stripped()
    if hasattr(value, "traced"):
        return untraced(value)
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return type(value), without_traced(fields)
