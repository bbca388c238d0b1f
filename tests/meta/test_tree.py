"""What holds for the whole tree: docstrings, budgets, no traces of a machine, configs resolve."""

import ast
import importlib
import inspect
import pkgutil
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for folder in ("qjax", "tests", "experiments") for path in (ROOT / folder).rglob("*.py")
)
MODULES = [path for path in SOURCES if path.is_relative_to(ROOT / "qjax")]
METHODS = [path for path in MODULES if path.parent.name == "methods" and path.stem != "__init__"]
CONFIGS = sorted((ROOT / "conf").rglob("*.yaml"))

METHOD_LINES = 150
FILE_LINES = 300
FUNCTION_LINES = 40
"""Lines of a function without its docstring: a contract spelled out is no fault."""

# Path, or path::function: the lines it may have instead, and why it is better whole.
LONGER_FOR_A_REASON: dict[str, tuple[int, str]] = {
    "qjax/methods/affine.py": (185, "weights and activations of one paper, per tensor and channel"),
    "qjax/training/step.py::make_step": (50, "forward and step close over the same values"),
    "tests/methods/test_wage.py": (330, "one paper: forward, backward, update and network"),
    "tests/program/litert_cases.py": (370, "a list of cases, one a line"),
}

# A folder that only exists on somebody's machine, and package registries: neither means anything
# to the next reader. The brackets keep this file from finding itself.
TRACES = re.compile(
    rb"(?<![\w.$}/~-])/(?:hom[e]/\w|roo[t]/|User[s]/\w|wor[k]/|op[t]/\w)"
    rb"|pyp[i]\.org|pythonhoste[d]\.org|npmj[s]\.(?:org|com)|de[b]\.debian\.org|crate[s]\.io"
)


def named(path: Path) -> str:
    """Returns a file's name in reports: its path from the root of the tree."""
    return path.relative_to(ROOT).as_posix()


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Counts a function's lines without its docstring."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        docstring = function.body[0]
        assert docstring.end_lineno is not None
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


def sizes(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yields a file and each of its functions: name, lines, and the usual budget."""
    text = path.read_text(encoding="utf-8")
    yield named(path), len(text.splitlines()), METHOD_LINES if path in METHODS else FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{named(path)}::{node.name}", code_lines(node), FUNCTION_LINES


def targets(node: object) -> Iterator[str]:
    """Yields every `_target_` of a parsed YAML file."""
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from targets(child)


def targets_of(config: Path) -> set[str]:
    """Returns the `_target_`s of a config file."""
    return set(targets(yaml.safe_load(config.read_text(encoding="utf-8"))))


def files_of_the_tree() -> list[Path]:
    """Returns what git tracks or would add, whatever its kind."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout to know which files belong to the tree")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    paths = (ROOT / name for name in names.split("\0") if name)
    return [path for path in paths if path.is_file()]


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_says_what_it_is(path: Path):
    if not path.stem.startswith("_") or path.stem == "__init__":
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_files_and_functions_are_small(path: Path):
    for name, lines, usual in sizes(path):
        allowed = LONGER_FOR_A_REASON.get(name, (usual,))[0]
        assert lines <= allowed, f"{name} has {lines} lines, {allowed} allowed: divide it"


def test_no_reason_outlives_its_need():
    over = {name for path in SOURCES for name, lines, usual in sizes(path) if lines > usual}
    assert set(LONGER_FOR_A_REASON) <= over


@pytest.mark.parametrize(
    "trace", [b"/hom" + b"e/ada/data", b"x=/wor" + b"k/", b"https://pyp" + b"i.org/simple"]
)
def test_traces_are_recognised(trace: bytes):
    assert TRACES.search(trace)
    # In parts here too, lest a search for such traces stops at this file.
    parts = b"data/ro", b"ot/x ~/wo", b"rk/ ${data.root}/ho", b"me/x https://example.org/wo", b"rk/"
    assert not TRACES.search(b"".join(parts))


def test_no_file_names_a_machine_or_a_registry():
    found = {named(path): TRACES.findall(path.read_bytes()) for path in files_of_the_tree()}
    assert not {name: traces for name, traces in found.items() if traces}


@pytest.mark.parametrize("config", CONFIGS, ids=named)
def test_every_target_resolves(config: Path):
    for target in targets_of(config):
        assert callable(pkgutil.resolve_name(target))


@pytest.mark.parametrize("path", METHODS, ids=named)
def test_a_method_can_be_chosen_cited_and_found(path: Path):
    module = importlib.import_module(f"qjax.methods.{path.stem}")
    choices = {
        pkgutil.resolve_name(target)
        for config in CONFIGS
        for target in targets_of(config)
        if target.startswith(f"{module.__name__}.")
    }
    assert choices, f"no file in conf has a _target_ in {module.__name__}"
    references = {inspect.getattr_static(choice, "reference", None) for choice in choices}
    assert any(isinstance(key, str) and key for key in references), f"{path.stem} cites no paper"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line for line in readme.splitlines() if line.startswith("|")]
    assert any(named(path) in row for row in rows), f"README's method table has no {named(path)}"
