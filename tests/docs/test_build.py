"""The pages of the methods follow from their docstrings."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
assert SPEC is not None and SPEC.loader is not None
build = importlib.util.module_from_spec(SPEC)
# A dataclass looks its module up by name.
importlib.import_module("sys").modules["docs_build"] = build
SPEC.loader.exec_module(build)


@pytest.mark.parametrize("method", build.method_files(), ids=lambda path: path.stem)
def test_a_page_follows_from_its_docstrings(method: Path):
    stored = build.PAGES / f"{method.stem}.md"
    assert stored.is_file() and stored.read_text(encoding="utf-8") == build.page(method), (
        "run `python docs/build.py`"
    )
    drawn = bool(build.choices(method) or build.targets(method))
    assert drawn == stored.with_suffix(".png").is_file()


def test_no_page_outlives_its_method():
    methods = {path.stem for path in build.method_files()}
    assert {path.stem for path in build.PAGES.iterdir()} == methods


def test_gradient_quantizers_and_wrappers_are_drawn():
    chosen = {"dorefa_gradient": "`error=dorefa`", "limited_precision": "`error=nearest`"}
    for stem, word in (chosen | {"power_of_two": "`target=shift`"}).items():
        text = build.page(ROOT / "qjax" / "methods" / f"{stem}.py")
        assert f"Chosen by {word}" in text and f"({stem}.png)" in text


def test_a_page_quotes_the_paper_and_names_its_choice():
    text = build.page(ROOT / "qjax" / "methods" / "pact.py")
    assert "arXiv 1805.06085" in text and "## Pact" in text and "`act=pact`" in text
