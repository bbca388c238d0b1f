"""Which kernels a compiled program takes, read from its optimized HLO text.

    products(jax.jit(f).lower(x).compile().as_text())

A dot or a convolution is fast when XLA hands it to a library with narrow operands. On CPU the
library call is a fusion of kind `__ynn_fusion`; an integer product that stays outside has its
operands widened to 32 bits and runs in a plain loop, up to ten times slower than float32. On GPU
the calls are custom calls (cuBLAS, cuDNN) or Triton fusions.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple


class Product(NamedTuple):
    """One dot or convolution of a compiled program.

    Attributes:
        operation: "dot", "convolution" or the target of a custom call.
        operand: HLO type of the first operand as the kernel sees it: "s8", "s32", "f32", ...
        library: kind of the library call it is part of, "" for XLA's own loop.
        layer: the traced operation's name, with the name scopes it was traced in.
    """

    operation: str
    operand: str
    library: str
    layer: str

    @property
    def path(self) -> str:
        """In words: "s8 library", "s32 loop", "f32 library", ...; only the first is fast."""
        return f"{self.operand} {'library' if self.library else 'loop'}"


_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(
    r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = \(?(?P<type>\w+)\[.*?[ )](?P<operation>[\w\-]+)"
    r"\((?P<operands>[^()]*)\)(?P<rest>.*)$"
)
_CALLS = re.compile(r"calls=%?([\w.\-]+)")
_KIND = re.compile(r'"kind":"(__[\w$]+)"')
_TARGET = re.compile(r'custom_call_target="([^"]*(?:matmul|gemm|conv)[^"]*)"', re.IGNORECASE)
_LAYER = re.compile(r'op_name="([^"]*)"')


def products(text: str) -> list[Product]:
    """Every dot and convolution of a compiled program, in the order of the text.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.ones((8, 8))
    >>> [p.operation for p in products(jax.jit(lambda x: x @ x).lower(x).compile().as_text())]
    ['dot']
    """
    kinds = _library_kinds(text)
    found: list[Product] = []
    for computation, instructions in _computations(text):
        types = {line["name"]: line["type"] for line in instructions}
        for line in instructions:
            target = _TARGET.search(line["rest"])
            if line["operation"] in ("dot", "convolution"):
                operation, library = line["operation"], kinds.get(computation, "")
            elif line["operation"] == "custom-call" and target:
                operation = library = target[1]
            else:
                continue
            # "s8[2,3]{1,0} %x" in some versions, "%x" in others.
            first = re.split(r", (?=%|\w+\[)", line["operands"])[0].split()[-1].lstrip("%")
            layer = _LAYER.search(line["rest"])
            found.append(
                Product(operation, types.get(first, "?"), library, layer[1] if layer else "")
            )
    return found


def paths(text: str) -> str:
    """The distinct paths of all products in one line; "elementwise" where there are none."""
    return ", ".join(dict.fromkeys(p.path for p in products(text))) or "elementwise"


def _computations(text: str) -> Iterator[tuple[str, list[re.Match[str]]]]:
    name, instructions = "", []
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            name, instructions = header[1], []
        elif line.startswith("}"):
            yield name, instructions
        elif instruction := _INSTRUCTION.match(line):
            instructions.append(instruction)


def _library_kinds(text: str) -> dict[str, str]:
    """Computation -> kind, for those that a library fusion calls."""
    kinds = {}
    for line in text.splitlines():
        called, kind = _CALLS.search(line), _KIND.search(line)
        if called and kind:
            kinds[called[1]] = kind[1]
    return kinds
