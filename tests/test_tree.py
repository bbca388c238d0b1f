"""A model as a tree of layers: listed in order of definition, replaced in place, never shared."""

import jax
import pytest
from flax import nnx

from qjax.layers import Act, Add
from qjax.tree import Wrapped, check_unshared, get, swap, walk, wrap_layers


class Part(nnx.Module):
    """A module with a layer of its own."""

    def __init__(self) -> None:
        self.act = Act()

    def __call__(self, x: jax.Array) -> jax.Array:
        """The activation."""
        return self.act(x)


class Whole(nnx.Module):
    """Layers as attributes, in lists and in dictionaries."""

    def __init__(self) -> None:
        self.first = Act()
        self.blocks = nnx.List([Part(), Part()])
        self.named = nnx.Dict({"b": Part(), "a": Add()})

    def __call__(self, x: jax.Array) -> jax.Array:
        """Every layer once."""
        y = self.first(x)
        for block in self.blocks:
            y = block(y)
        return self.named["a"](x, self.named["b"](y))  # pyright: ignore[reportCallIssue]


PATHS = ["first", "blocks.0.act", "blocks.1.act", "named.b.act", "named.a"]


def test_layers_are_listed_in_order_of_definition():
    assert [path for path, _ in walk(Whole())] == PATHS


@pytest.mark.parametrize("path", PATHS)
def test_a_layer_is_found_and_replaced_where_it_stands(path: str):
    model, new = Whole(), Act("identity")
    assert get(model, path) is dict(walk(model))[path]
    swap(model, path, new)
    assert get(model, path) is new
    assert [other for other, _ in walk(model)] == PATHS


def test_an_element_of_a_list_is_replaced():
    model, new = Whole(), Part()
    swap(model, "blocks.1", new)
    assert get(model, "blocks.1") is new and get(model, "blocks.0") is not new


def test_a_shared_layer_is_listed_twice_and_refused_with_both_paths():
    model = Whole()
    swap(model, "blocks.1.act", model.first)
    layers = dict(walk(model))
    assert list(layers) == PATHS
    with pytest.raises(ValueError) as caught:
        check_unshared(layers)
    for part in ("'first'", "'blocks.1.act'", "share their quantizers", "construct a layer"):
        assert part in str(caught.value)
    check_unshared(dict(walk(Whole())))


def test_wrapped_layers_are_called_through_the_function():
    model, seen = Whole(), []

    def call(path: str, layer: nnx.Module, inputs: tuple) -> object:
        seen.append((path, len(inputs)))
        return layer(*inputs)  # pyright: ignore[reportCallIssue]

    x = jax.numpy.asarray([-1.0, 2.0])
    expected = model(x)
    wrap_layers(model, call)
    assert all(isinstance(get(model, path), Wrapped) for path in PATHS)
    assert model(x).tolist() == expected.tolist() == [-1.0, 4.0]
    assert seen == [(p, 2 if p == "named.a" else 1) for p in PATHS]
