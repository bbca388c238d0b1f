"""Integer products on GPUs need a flag, which the commands set and the products ask for."""

import jax.numpy as jnp
import pytest

from qjax.core.exactness import FLAG, require_exact_products, use_exact_products
from qjax.core.intconv import conv_acc


def test_commands_add_the_flag_once_and_keep_what_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=here")
    use_exact_products()
    use_exact_products()
    require_exact_products("gpu")
    monkeypatch.setenv("XLA_FLAGS", f"{FLAG}=true")
    use_exact_products()
    with pytest.raises(RuntimeError, match="set the environment variable XLA_FLAGS"):
        require_exact_products("gpu")


def test_a_product_without_the_flag_is_refused_on_gpus_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    x, kernel = jnp.ones((1, 2, 2, 1), jnp.int8), jnp.ones((1, 1, 1, 1), jnp.int8)
    with pytest.raises(RuntimeError, match="wrongly on GPUs"):
        conv_acc(x, kernel, platform="gpu")
    assert conv_acc(x, kernel, platform="cpu").sum() == 4
