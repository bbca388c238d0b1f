"""Imports go one way: the table of who may import whom, held against the syntax trees.

A part is a folder of `qjax` or one file beside them. A part may import the parts its row names,
and rows name only rows above them, so the table itself has no circles. The entry points (the files
of `qjax` itself that define `main`) come after all of them.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

QJAX = Path(__file__).parents[2] / "qjax"


class Row(NamedTuple):
    """What one part may import of `qjax`, and why no more than that."""

    may_import: set[str]
    reason: str


TABLE = {
    "core": Row(set(), "the arithmetic stands under everything"),
    "data": Row(set(), "numpy in, numpy out: a data set serves any framework"),
    "results": Row(set(), "tables are functions of records, wherever the records came from"),
    "plots": Row({"core"}, "it draws any quantizer by running it, so it knows of none"),
    "calibration": Row({"core"}, "a range estimator knows codes and grids, not networks"),
    "methods": Row({"core", "calibration"}, "a paper is read beside one file and the core"),
    "layers": Row({"core"}, "a layer takes any quantizer, so it knows of none"),
    "models": Row({"layers"}, "a model says nothing of quantization"),
    "program": Row({"core", "layers"}, "an integer network runs without its model's code"),
    "tree": Row({"layers"}, "it lists and replaces layers, whatever they compute"),
    "probe": Row({"layers", "tree"}, "it watches layers run, whatever they compute"),
    "recipe": Row({"core", "layers", "probe"}, "rules place quantizers that configs chose"),
    "surgery": Row(
        {"core", "layers", "probe", "recipe", "tree"}, "it binds what the rules chose, and no more"
    ),
    "integerize": Row(
        {"core", "layers", "probe", "program", "surgery", "tree"}, "one form goes in, another out"
    ),
    "target": Row(
        {"core", "integerize", "layers", "recipe", "surgery", "tree"},
        "it holds a network against a runtime's limits, whatever the method",
    ),
    "floatfree": Row({"core", "integerize", "layers", "tree"}, "it reads a program, not a model"),
    "agreement": Row(
        {"core", "floatfree", "integerize", "layers", "surgery", "tree"},
        "it compares two forms of one network, however they came to be",
    ),
    "posttraining": Row(
        {"calibration", "core", "integerize", "layers", "probe", "recipe", "surgery", "tree"},
        "its functions work on a trained model, however it was trained",
    ),
    "record": Row({"results"}, "it writes plain values, so that any loop can keep a record"),
    "training": Row(
        {
            *("core", "data", "layers", "tree", "probe", "recipe", "surgery"),
            *("integerize", "floatfree", "agreement", "record", "target"),
        },
        "a method hooks in through the values it is made of, not by name",
    ),
    "launchers": Row({"record", "training"}, "a launcher starts jobs, whatever they train"),
}

FORBIDDEN_PACKAGES = {
    "data": {"jax", "jaxlib", "flax", "optax", "orbax"},
    "results": {"jax", "jaxlib", "flax", "optax", "orbax"},
}
HYDRA = {"hydra", "omegaconf"}
HYDRA_PARTS = {"launchers"}

MODULES = sorted(QJAX.rglob("*.py"))


def imported_names(source: str, package: list[str]) -> Iterator[str]:
    """Yields the dotted name of all that a module imports, wherever in the file it does so.

    Args:
        source: the module's text.
        package: the packages the module lies in, outermost first, for its relative imports.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            parent = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{parent}.{alias.name}" for alias in node.names)


def imports_of(path: Path) -> set[str]:
    """Returns the dotted names that a file of `qjax` imports."""
    package = list(path.relative_to(QJAX.parent).parent.parts)
    return set(imported_names(path.read_text(encoding="utf-8"), package))


def part_of(path: Path) -> str:
    """Returns the folder of `qjax` that a file lies in, or the name of a file beside them."""
    return path.relative_to(QJAX).with_suffix("").parts[0]


def is_entry_point(path: Path) -> bool:
    """Tells whether a file lies in `qjax` itself and defines `main`."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    mains = (node for node in body if isinstance(node, ast.FunctionDef) and node.name == "main")
    return path.parent == QJAX and any(mains)


def parts_imported(path: Path) -> set[str]:
    """Returns the other parts of `qjax` that a file imports."""
    names = (name.split(".") for name in imports_of(path))
    return {name[1] for name in names if name[0] == "qjax" and len(name) > 1} - {part_of(path)}


def test_the_walk_sees_every_way_to_import():
    source = """
import qjax.a
def f():
    from qjax import b
    from . import c
    from ..d import e
"""
    found = set(imported_names(source, ["qjax", "core"]))
    assert found == {"qjax.a", "qjax.b", "qjax.core.c", "qjax.d.e"}


def test_rows_name_only_rows_above_them():
    parts = list(TABLE)
    for place, (part, row) in enumerate(TABLE.items()):
        assert row.may_import <= set(parts[:place]), f"{part} names a row that is not above it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(QJAX.parent)))
def test_a_module_imports_only_what_its_row_allows(path: Path):
    part = part_of(path)
    imported = parts_imported(path)
    if part == "__init__":
        assert not imported, "`import qjax` loads nothing else"
    elif not is_entry_point(path):
        assert part in TABLE, f"qjax/{part} has no row in the table: add one, with its reason"
        row = TABLE[part]
        assert imported <= row.may_import, f"{part} may import {row.may_import}: {row.reason}"


def test_nothing_imports_a_method():
    # Hydra's `_target_`, tests and notebooks reach them: deleting a method's file and its YAML must
    # remove the method and break nothing, another method included.
    importers = [
        path.name
        for path in MODULES
        if any(name.startswith("qjax.methods") for name in imports_of(path))
    ]
    assert not importers, "name the method in a config, or move what is shared to core"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(QJAX.parent)))
def test_a_module_imports_no_package_it_must_do_without(path: Path):
    part = part_of(path)
    packages = {name.split(".")[0] for name in imports_of(path)}
    assert not packages & FORBIDDEN_PACKAGES.get(part, set())
    if part not in HYDRA_PARTS and not is_entry_point(path):
        assert not packages & HYDRA, "configs are read in entry points and launchers only"


def test_reading_results_loads_no_jax():
    modules = [
        ".".join(path.relative_to(QJAX.parent).with_suffix("").parts)
        for path in MODULES
        if part_of(path) == "results" and path.name != "__init__.py"
    ]
    code = f"import sys, {', '.join(['qjax', *modules])}; print('jax' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
