"""Write a page for each method: its module's and classes' docstrings, and the curves of its code.

`python docs/build.py` writes `docs/methods/NAME.md` for every file of `qjax/methods`, and
`NAME.png` for those that `conf/weight`, `conf/act` or `conf/error` offer, or a target puts around
other quantizers. Nothing on a page is written by hand:
change the docstring and run it again. `--text` leaves the pictures as they are.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
METHODS = ROOT / "qjax" / "methods"
PAGES = ROOT / "docs" / "methods"
KINDS: dict[str, Literal["weight", "activation", "error"]] = {
    "weight": "weight",
    "act": "activation",
    "error": "error",
}
INNER = "minmax"
"""What a quantizer that a target puts around others is drawn with."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A file of `conf` that builds a quantizer of a method: `group=name`."""

    group: str
    name: str
    path: Path


def method_files() -> list[Path]:
    """Every file of a paper, in alphabetical order."""
    return sorted(path for path in METHODS.glob("*.py") if path.stem != "__init__")


def choices(method: Path) -> list[Choice]:
    """The files of the groups in `KINDS` whose `_target_` lies in a method's file."""
    prefix = f"_target_: qjax.methods.{method.stem}."
    return [
        Choice(group, path.stem, path)
        for group in KINDS
        for path in sorted((ROOT / "conf" / group).glob("*.yaml"))
        if path.read_text(encoding="utf-8").startswith(prefix) and method.stem != "none"
    ]


def targets(method: Path) -> list[str]:
    """The targets that put a method's quantizer around others."""
    around = re.compile(rf"_target_: qjax\.methods\.{method.stem}\.\w+\n +of: \${{weight}}")
    files = sorted((ROOT / "conf" / "target").glob("*.yaml"))
    return [path.stem for path in files if around.search(path.read_text(encoding="utf-8"))]


def page(method: Path) -> str:
    """The Markdown of a method's page, from its source alone: nothing is imported."""
    tree = ast.parse(method.read_text(encoding="utf-8"))
    offered = [f"`{choice.group}={choice.name}`" for choice in choices(method)]
    offered += [f"`target={name}`" for name in targets(method)]
    parts = [f"# {method.stem}", _fenced(ast.get_docstring(tree) or "")]
    if offered:
        parts += [f"Chosen by {', '.join(offered)}.", f"![values and gradients]({method.stem}.png)"]
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            parts += [f"## {node.name}", _fenced(ast.get_docstring(node) or "")]
    source = method.relative_to(ROOT).as_posix()
    parts.append(f"Source: [`{source}`](../../{source}). Written by `docs/build.py`.")
    return "\n\n".join(parts) + "\n"


def _fenced(docstring: str) -> str:
    # Equations and doctests are laid out by their spaces, which Markdown would fold.
    return f"```text\n{docstring}\n```"


def picture(method: Path, target: Path) -> None:
    """The curves of everything a method offers: a row each, values and gradients side by side."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from qjax.plots import axis_of, curve, draw

    offered = list(_offered(method))
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's own style file must not change the bytes
        figure = Figure(figsize=(8, 2.4 * len(offered)), dpi=70, layout="constrained")
        FigureCanvasAgg(figure)
        rows = figure.subplots(len(offered), 2, squeeze=False)
        for (title, group, quantizer), (forward, backward) in zip(offered, rows, strict=True):
            kind = KINDS[group]
            # PACT's first clip is 6: an axis that reaches it shows the clip.
            reach = 1.25 * getattr(quantizer, "alpha_init", 0.8)
            draw(curve(quantizer, kind, axis_of(kind, reach)), forward, backward)
            forward.set_title(title, fontsize="small")
            backward.set_title("gradient", fontsize="small")
        figure.savefig(target, metadata={"Software": None})


def _offered(method: Path) -> Iterator[tuple[str, str, Any]]:
    """(title, group, quantizer) of everything that is drawn."""
    for choice in choices(method):
        quantizer = _built(choice.path, "")
        yield f"{choice.group}={choice.name}, {quantizer.bits} bits", choice.group, quantizer
    for name in targets(method):
        for group in ("weight", "act"):
            quantizer = _built(ROOT / "conf" / "target" / f"{name}.yaml", f".recipe.{group}")
            inner = f"{group}={INNER}, {quantizer.of.bits} bits"
            yield f"target={name} around {inner}", group, quantizer


def _built(path: Path, part: str) -> Any:
    """The quantizer of a file, or of a part of it, at 3 bits or the next width that it takes."""
    import hydra
    from hydra.errors import InstantiationException
    from omegaconf import OmegaConf

    inner = {g: OmegaConf.load(ROOT / "conf" / g / f"{INNER}.yaml") for g in ("weight", "act")}
    for bits in (3, 2, 4):
        widths = dict.fromkeys(("w_bits", "a_bits", "e_bits", "g_bits"), bits)
        config = OmegaConf.create({**widths, **inner, "it": OmegaConf.load(path)})
        try:
            return hydra.utils.instantiate(OmegaConf.select(config, f"it{part}"), _convert_="all")
        except InstantiationException:
            continue
    raise ValueError(f"{path} builds nothing at 2, 3 or 4 bits; add a width it takes")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="write a page for each method")
    parser.add_argument("--text", action="store_true", help="leave the pictures as they are")
    text_only = parser.parse_args().text
    PAGES.mkdir(parents=True, exist_ok=True)
    for method in method_files():
        (PAGES / f"{method.stem}.md").write_text(page(method), encoding="utf-8")
        if (choices(method) or targets(method)) and not text_only:
            picture(method, PAGES / f"{method.stem}.png")


if __name__ == "__main__":
    main()
