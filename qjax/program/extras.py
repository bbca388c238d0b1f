"""Packages of the `export` extra, imported where they are needed and not before."""

import importlib
from types import ModuleType


def require(module: str, package: str) -> ModuleType:
    """Import a module of an optional package.

    Raises:
        ImportError: it is not installed; the message says what installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is needed here and cannot be imported ({error}); install {package}, or all "
            "of them with pip install -e '.[export]'"
        ) from error
