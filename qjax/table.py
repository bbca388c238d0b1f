"""Rebuilds the results pages from run records.

    python -m qjax.table paper=pact                     one folder of experiments/
    python -m qjax.table paper=all                      all of them
    python -m qjax.table paper=pact records=DIR[,DIR]   read these folders and no others
    python -m qjax.table paper=pact out=DIR             write under DIR/pact, not into the checkout
    python -m qjax.table paper=pact keep=true           also keep the records used, to commit

Without `records`, runs are read from `runs/` and `multirun/` of the current folder and of the
checkout, and from `experiments/<paper>/records/`, so that a clone can rebuild its tables.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from qjax.results.aggregate import group
from qjax.results.collect import collect
from qjax.results.compare import float_groups
from qjax.results.page import SETTINGS, load_page, write_page

_CHECKOUT = Path(__file__).resolve().parents[1]
_KEYS = ("paper", "records", "out", "keep")


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code: 0, 1 when a page failed, 2 for a wrong argument."""
    if not arguments or set(arguments) & {"-h", "--help"}:
        sys.stdout.write(__doc__ or "")
        return 0 if arguments else 2
    try:
        options = _parsed(arguments)
        names = _papers(options.get("paper"))
        roots = _roots(options.get("records"))
        keep = _flag(options.get("keep", "false"))
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    failed = False
    for name in names:
        folder = _CHECKOUT / "experiments" / name
        out = Path(options["out"]) / name if "out" in options else folder
        try:
            build(folder, roots or [*_default_roots(), folder / "records"], out, keep=keep)
        except (ValueError, FileNotFoundError) as error:
            sys.stderr.write(f"error: paper={name}: {error}\n")
            failed = True
    return int(failed)


def build(folder: Path, roots: Sequence[Path], out: Path, *, keep: bool = False) -> None:
    """Rebuilds the page of one experiments folder from the records under `roots`."""
    page = load_page(folder)
    found = collect(roots)
    for problem in found.problems:
        sys.stderr.write(f"warning: {problem}\n")
    groups = group(found.records)
    if keep:
        own = page.groups(groups)
        used = own + [other for one in own for other in float_groups(one, groups)]
        for run in {run.config_hash: run for one in used for run in one.runs}.values():
            _keep(found.folders[run.config_hash], folder / "records" / run.config_hash)
    for path in write_page(page, folder.name, groups, out):
        sys.stdout.write(f"{path}\n")


def _keep(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    if source.resolve() != target.resolve():
        shutil.copyfile(source / "result.json", target / "result.json")


def _parsed(arguments: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or key not in _KEYS or not value:
            raise ValueError(
                f"arguments must be KEY=VALUE with KEY one of {', '.join(_KEYS)}; got {argument!r}"
            )
        if key in options:
            raise ValueError(f"{key} must be given once, got it twice; join folders by commas")
        options[key] = value
    return options


def _papers(name: str | None) -> list[str]:
    folder = _CHECKOUT / "experiments"
    known = sorted(path.parent.name for path in folder.glob(f"*/{SETTINGS}"))
    if not known:
        raise ValueError(
            f"no experiments under {folder}; qjax works from its checkout (pip install --editable)"
        )
    if name == "all":
        return known
    if name not in known:
        raise ValueError(f"paper must be all or one of {', '.join(known)}; got {name}")
    return [name]


def _roots(text: str | None) -> list[Path]:
    roots = [Path(part) for part in text.split(",")] if text else []
    missing = [str(root) for root in roots if not root.is_dir()]
    if missing:
        raise ValueError(f"records must be folders that exist, got {', '.join(missing)}")
    return roots


def _default_roots() -> list[Path]:
    return [place / name for place in (_CHECKOUT, Path.cwd()) for name in ("runs", "multirun")]


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"keep must be true or false, got {text}")
    return text == "true"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
