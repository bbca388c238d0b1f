"""Every quantizer that conf/weight and conf/act offer: what the laws range over.

A YAML file is built at every bit width its class accepts, with every combination of the class's
yes-or-no fields. A new method is covered by its YAML alone.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import hydra
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hydra.errors import InstantiationException
from jax import Array
from omegaconf import OmegaConf

from qjax.core.codes import Codes
from qjax.core.quantizer import Quantizer, Role

CONF = Path(__file__).parents[2] / "conf"
FOLDERS = {"weight": "weight", "act": "activation"}
WIDTHS = range(1, 9)
SHAPE = (3, 3, 2, 11)
"""One shape for most laws, so that they share compilations; no multiple of a vector register."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One quantizer of one configuration file.

    Attributes:
        name: file, changed fields and width, for reports.
        kind: weight or activation.
        quantizer: as a user would build it, with its traced fields.
    """

    name: str
    kind: str
    quantizer: Quantizer

    @property
    def bits(self) -> int:
        """Width of its codes, 0 where the method has no such field."""
        return getattr(self.quantizer, "bits", None) or 0

    @property
    def bound(self) -> Quantizer:
        """The quantizer as a model holds it: traced fields moved out."""
        return self.quantizer.stripped()

    def numbers(self, x: Array) -> dict[str, Array]:
        """First numbers for a sample."""
        features = x.size if self.kind == "weight" else x.size // x.shape[0]
        return self.quantizer.init(x, Role(self.kind, features))  # pyright: ignore[reportArgumentType]

    def sample(self, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Array:
        """A tensor as the quantizer meets it: small weights, or activations around one."""
        draw = np.random.default_rng(seed).standard_normal(shape)
        return jnp.asarray(draw * (0.1 if self.kind == "weight" else 1.5), jnp.float32)


def build(path: Path, bits: int) -> Quantizer | None:
    """What a file builds at a width, None where the class refuses the width."""
    config = OmegaConf.create({"w_bits": bits, "a_bits": bits, "it": OmegaConf.load(path)})
    try:
        return hydra.utils.instantiate(config.it, _convert_="all")
    except InstantiationException as error:
        assert isinstance(error.__cause__, ValueError), f"{path.name} at {bits} bits: {error}"
        return None


def variants(template: Quantizer) -> Iterator[tuple[str, Quantizer]]:
    """A quantizer at every width, under every combination of its yes-or-no fields, where legal."""
    fields = dataclasses.fields(template)  # pyright: ignore[reportArgumentType]
    flags = [field.name for field in fields if isinstance(getattr(template, field.name), bool)]
    choices: dict[str, Iterable[object]] = {flag: (False, True) for flag in flags}
    if hasattr(template, "bits"):
        choices["bits"] = WIDTHS
    for values in itertools.product(*choices.values()):
        changes = dict(zip(choices, values, strict=True))
        try:
            changed = dataclasses.replace(template, **changes)  # pyright: ignore[reportArgumentType]
        except ValueError:
            continue
        yield ",".join(f"{name}={value}" for name, value in changes.items()), changed


def discover() -> list[Case]:
    """Every case, once."""
    found: dict[tuple[str, Quantizer], Case] = {}
    for folder, kind in FOLDERS.items():
        for path in sorted((CONF / folder).glob("*.yaml")):
            built = [quantizer for bits in WIDTHS if (quantizer := build(path, bits))]
            assert built, f"{path} accepts no bit width"
            if getattr(built[0], "is_float", False):
                continue
            for changes, changed in variants(built[0]):
                case = Case(f"{folder}/{path.stem}[{changes}]", kind, changed)
                found.setdefault((kind, changed), case)
            assert {(kind, quantizer) for quantizer in built} <= set(found), path
    return list(found.values())


CASES = discover()
FAMILIES = list({(case.kind, case.bound): case for case in CASES}.values())
"""One case of each quantizer that differs in more than traced fields, at its greatest width."""


def edges(x: Array) -> dict[str, Array]:
    """Tensors made from a sample that a quantizer meets rarely and must survive."""
    return {
        "zeros": jnp.zeros_like(x),
        "constant": jnp.full_like(x, 0.3),
        "negative": -jnp.abs(x) - 0.1,
        "outlier": x.at[(0,) * x.ndim].set(1e4),
        "tiny": x * 1e-6,
        "huge": x * 1e6,
        "one": x.reshape(-1)[:1],
    }


def widths(family: Case) -> list[Case]:
    """The cases that share a family's compiled program."""
    return [case for case in CASES if (case.kind, case.bound) == (family.kind, family.bound)]


def every(
    *, kind: str = "", families: bool = False, where: Callable[[Case], bool] = lambda _: True
):
    """Parametrizes a law over the cases, or one of each family."""
    cases = [c for c in (FAMILIES if families else CASES) if kind in ("", c.kind) and where(c)]
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def quiet(bound: Quantizer) -> Callable[[dict[str, Array], Array], Array]:
    """The simulation with noise off: a stochastic quantizer gets no key."""
    return functools.partial(bound, key=None) if bound.stochastic else bound  # pyright: ignore


@functools.cache
def simulation(bound: Quantizer) -> Callable[[dict[str, Array], Array], Array]:
    """The compiled simulation, shared between widths."""
    return jax.jit(quiet(bound))


@functools.cache
def gradient(bound: Quantizer) -> Callable[[dict[str, Array], Array, Array], Array]:
    """The compiled gradient with respect to x of <y, direction>."""
    return jax.jit(jax.grad(lambda p, x, g: jnp.sum(quiet(bound)(p, x) * g), argnums=1))


def decode_float32(codes: Codes) -> np.ndarray:
    """What codes stand for in the simulation's arithmetic: scale * (code - zero point) in float32.

    The difference is exact and the product rounded once, so there is one right answer to the bit.
    """
    total = np.zeros(codes.shape, np.float32)
    for index, term in enumerate(codes.terms):
        steps = np.asarray(term.ints, np.float64) - term.zero_point.value
        value = term.scale.value.astype(np.float32) * steps.astype(np.float32)
        total = value if index == 0 else total + value
    assert not np.any(codes.offset.value)
    return total
