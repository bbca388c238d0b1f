"""Every example in a docstring runs and prints what it says; every method has one."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "qjax").rglob("*.py"))
WITH_EXAMPLES = [path for path in MODULES if ">>> " in (ROOT / path).read_text(encoding="utf-8")]
METHODS = [path for path in MODULES if path.parent.name == "methods" and path.stem != "__init__"]


def dotted(path: Path) -> str:
    """Returns the name a file of `qjax` is imported by."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=str)
def test_examples_print_what_they_say(path: Path):
    results = doctest.testmod(importlib.import_module(dotted(path)), report=True)
    assert results.attempted, f"{path} has an example that doctest does not find"
    assert not results.failed


@pytest.mark.parametrize("path", METHODS, ids=str)
def test_a_method_shows_a_value_and_a_gradient(path: Path):
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = finder.find(importlib.import_module(dotted(path)))
    source = "".join(example.source for test in found for example in test.examples)
    assert source, f"{path} has no example"
    assert "grad(" in source or path.stem == "none", f"{path} shows no gradient"
