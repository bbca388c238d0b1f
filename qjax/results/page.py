"""A folder under `experiments/`: reads what its page shows, writes `table.md`, CSV and figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from qjax.results.aggregate import Group
from qjax.results.expected import read_expected
from qjax.results.figures import Candidate, accuracy_over_bits, accuracy_over_columns, pareto
from qjax.results.markdown import bits_text
from qjax.results.measured import measured_csv
from qjax.results.one_recipe import OneRecipePage
from qjax.results.paper import PaperPage
from qjax.results.question import Question, QuestionPage

Page = PaperPage | OneRecipePage | QuestionPage

SETTINGS = "table.yaml"
_FIGURES = {
    "accuracy_over_bits.png": "Accuracy over bits, with a bar of one standard deviation.",
    "accuracy.png": "The tables, drawn, with a bar of one standard deviation.",
    "pareto_weight_bytes.png": "Accuracy over the bytes of the integer weights.",
    "pareto_bit_operations.png": "Accuracy over bit operations for one image.",
}


def load_page(folder: Path) -> Page:
    """Reads `table.yaml` (and `expected.csv` beside it) of one experiments folder.

    Raises:
        ValueError: a key is missing, unknown or of a value that is not allowed.
    """
    path = folder / SETTINGS
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    kind = settings.get("kind") if isinstance(settings, dict) else None
    try:
        if kind == "paper":
            _require(settings, {"kind", "title", "methods"}, {"leave_out"})
            expected = tuple(read_expected(folder / "expected.csv"))
            methods, without = tuple(settings["methods"]), tuple(settings.get("leave_out", ()))
            return PaperPage(settings["title"], methods, expected, without)
        if kind == "one_recipe":
            keys = {"kind", "title", "reference", "bits", "settings"}
            _require(settings, keys, {"methods"})
            bits = tuple((w, a) for w, a in settings["bits"])
            shared, methods = tuple(settings["settings"]), tuple(settings.get("methods", ()))
            return OneRecipePage(settings["title"], settings["reference"], bits, shared, methods)
        if kind == "question":
            _require(settings, {"kind", "title", "tables"}, {"pareto"})
            tables = tuple(Question(**table) for table in settings["tables"])
            return QuestionPage(settings["title"], tables, settings.get("pareto", False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    raise ValueError(f"{path}: kind must be paper, one_recipe or question, got {kind!r}")


def write_page(page: Page, name: str, groups: Sequence[Group], out: Path) -> list[Path]:
    """Writes `measured.csv`, `table.md` and `figures/` under `out`; returns the files written.

    A figure that has nothing to show is not drawn, and one left from before is removed.
    """
    own = page.groups(groups)
    out.mkdir(parents=True, exist_ok=True)
    drawn = _draw(page, groups, own, out / "figures")
    text = (
        f"# {page.title}\n\n"
        f"Generated from records by `python -m qjax.table paper={name}`; not to be edited.\n\n"
        f"{page.text(groups)}\n## Figures\n\n"
    )
    text += "\n".join(f"![{_FIGURES[path.name]}](figures/{path.name})\n" for path in drawn)
    text += "" if drawn else "No run to draw.\n"
    written = {out / "measured.csv": measured_csv(own), out / "table.md": text}
    for path, content in written.items():
        path.write_text(content, encoding="utf-8", newline="\n")
    return [*written, *drawn]


def _require(settings: dict[str, Any], keys: set[str], optional: set[str] = frozenset()) -> None:  # pyright: ignore[reportArgumentType]
    if not keys <= settings.keys() <= keys | optional:
        may = f", and may be {sorted(optional)}" if optional else ""
        raise ValueError(f"the keys must be {sorted(keys)}{may}; got {sorted(settings)}")


def _draw(page: Page, groups: Sequence[Group], own: Sequence[Group], folder: Path) -> list[Path]:
    for name in _FIGURES:
        (folder / name).unlink(missing_ok=True)
    over_bits, over_columns, over_bytes, over_operations = (folder / name for name in _FIGURES)
    if isinstance(page, QuestionPage):
        if charts := page.charts(groups):
            accuracy_over_columns(charts, over_columns)
    elif panels := page.panels(groups):
        accuracy_over_bits(panels, over_bits)
    if not isinstance(page, QuestionPage) or page.pareto:
        costs = [(group, group.first.integer["weight_bytes"]) for group in own]
        if _candidates(costs):
            pareto(_candidates(costs), "weight bytes", over_bytes)
        costs = [(group, group.first.bit_operations or 0) for group in own]
        if _candidates(costs):
            pareto(_candidates(costs), "bit operations for one image", over_operations)
    return [folder / name for name in _FIGURES if (folder / name).exists()]


def _candidates(costs: Sequence[tuple[Group, int]]) -> list[Candidate]:
    """The groups with an accuracy and a known cost, the network named where there are several."""
    found = []
    several = len({group.first.model for group, _ in costs}) > 1
    for group, cost in costs:
        run, summary = group.first, group.headline()
        if summary is not None and cost > 0:
            network = f"{run.model} " if several else ""
            label = f"{network}{run.method} {bits_text(group.bits)}"
            point = (run.data, run.method, cost, summary.mean, summary.std)
            found.append(Candidate(label, *point))
    return found
