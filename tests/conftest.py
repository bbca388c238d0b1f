"""What every test runs under: shapes checked, broadcasts explicit, the CPU, the same examples.

All of it is set before the first import of `qjax`: the import hook only sees what comes after it.
"""

import os
from collections.abc import Iterator

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401 - the import hook finds it by name

install_import_hook("qjax", "tests.typechecker.check")

# A silent (n,) + (n, 1) is how a per-channel scale lands on the wrong axis.
jax.config.update("jax_numpy_rank_promotion", "raise")

# A busy machine and a first compilation are no defects: no deadline, and slow examples are welcome.
settings.register_profile(
    "qjax",
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("qjax")


@pytest.fixture
def allow_rank_promotion() -> Iterator[None]:
    """Lets jax.numpy broadcast across ranks, for code that is not ours to change."""
    with jax.numpy_rank_promotion("allow"):
        yield
