"""A model as a tree of layers: list them with their paths, replace some of them in a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from flax import nnx

from qjax.layers.layer import Layer

Path = str


def children(node: object) -> Iterator[tuple[str, object]]:
    """Named parts of a module or container, in order of definition."""
    if isinstance(node, nnx.List | list | tuple):
        yield from ((str(i), child) for i, child in enumerate(node))
    elif isinstance(node, nnx.Dict | dict):
        yield from ((str(name), child) for name, child in node.items())
    elif isinstance(node, nnx.Module):
        yield from ((name, child) for name, child in vars(node).items() if not name.startswith("_"))


def walk(node: object, path: str = "") -> Iterator[tuple[Path, Layer]]:
    """Every layer below `node` with its dotted path; a layer's own parts are not searched.

    A module that stands in two places is listed twice: sharing is visible to the caller.
    """
    for name, child in children(node):
        below = f"{path}.{name}" if path else name
        if isinstance(child, Layer):
            yield below, child
        else:
            yield from walk(child, below)


def get(model: nnx.Module, path: Path) -> object:
    """What stands at `path` of `model`."""
    node: object = model
    for name in path.split("."):
        node = _child(node, name)
    return node


def swap(model: nnx.Module, path: Path, new: object) -> None:
    """Put `new` at `path` of `model`, in place."""
    *parents, last = path.split(".")
    node = get(model, ".".join(parents)) if parents else model
    if isinstance(node, nnx.List | list):
        node[int(last)] = new
    elif isinstance(node, nnx.Dict | dict):
        node[last] = new
    else:
        setattr(node, last, new)


def _child(node: object, name: str) -> object:
    if isinstance(node, nnx.List | list | tuple):
        return node[int(name)]
    return node[name] if isinstance(node, nnx.Dict | dict) else getattr(node, name)


def check_unshared(layers: Mapping[Path, Layer]) -> None:
    """Raise when one layer object stands at two paths: it would share its clip silently.

    Raises:
        ValueError: naming both paths.
    """
    seen: dict[int, Path] = {}
    for path, layer in layers.items():
        if id(layer) in seen:
            raise ValueError(
                f"layers {seen[id(layer)]!r} and {path!r} are one object and would share their "
                f"quantizers; "
                "construct a layer for each place"
            )
        seen[id(layer)] = path


class Wrapped(nnx.Module):
    """A layer behind a function `(path, layer, inputs) -> output`: how probes look without
    interception.
    """

    def __init__(
        self, path: Path, layer: nnx.Module, call: Callable[[Path, nnx.Module, tuple], object]
    ):
        self.path = path
        self.layer = layer
        self.call = call

    def __call__(self, *inputs: object) -> object:
        """What `call` makes of the inputs."""
        return self.call(self.path, self.layer, inputs)


def wrap_layers(model: nnx.Module, call: Callable[[Path, nnx.Module, tuple], object]) -> None:
    """Wrap every layer of `model` in place; use it on a clone or a merged copy."""
    for path, layer in list(walk(model)):
        swap(model, path, Wrapped(path, layer, call))
