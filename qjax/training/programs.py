"""Compiled functions, and arrays on the device, that several runs use one after another.

Runs that differ in traced numbers only (bits, seed, learning rate, decays) trace to the same
program and compile it each anew: jit knows a function by its identity, and every run makes its own.
A `Programs` that is handed to all of them makes each function once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

ANY = 1
"""What stands for a traced number of an optimizer; within the range of each."""


class Programs:
    """Functions, known by all that is fixed in them.

    Args:
        adapt: makes another function of each, told its key; None to take it as it is.

    Attributes:
        made: how many functions were made. shared: how often one was used again.

    Example:
        >>> programs = Programs()
        >>> first = programs.get(("double", 2), lambda: lambda x: 2 * x)
        >>> programs.get(("double", 2), lambda: lambda x: 2 * x) is first
        True
    """

    def __init__(self, adapt: Callable[[Hashable, Any], Any] | None = None) -> None:
        self._adapt = adapt
        self._functions: dict[Hashable, Any] = {}
        self.made = 0
        self.shared = 0

    def get[T](self, key: Hashable, make: Callable[[], T]) -> T:
        """The function that was made for an equal key, or else a new one.

        Args:
            key: everything that the function's program depends on apart from its arguments. One
                that cannot be hashed has no equal: its function is made anew.
            make: makes the function.
        """
        try:
            hash(key)
        except TypeError:
            key = object()
        if key in self._functions:
            self.shared += 1
        else:
            self.made += 1
            made = make()
            self._functions[key] = made if self._adapt is None else self._adapt(key, made)
        return self._functions[key]


def untraced[T](optimizer: T) -> T:
    """An optimizer without the numbers that live in its state, which its class lists as `traced`:
    two with equal results build the same update.
    """
    numbers = dict.fromkeys(getattr(optimizer, "traced", ()), ANY)
    return dataclasses.replace(optimizer, **numbers)  # pyright: ignore[reportArgumentType]
