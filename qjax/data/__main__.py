"""`python -m qjax.data fetch NAME` and `python -m qjax.data list`."""

import argparse
import sys
from pathlib import Path

from qjax.data import cache
from qjax.data.fetch import FetchError, fetch, read_root, sources
from qjax.data.source import Source


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or 1 with the reason on standard error."""
    known = sources()
    parser = argparse.ArgumentParser(
        prog="python -m qjax.data",
        description="Image sets in the local cache. The digits are embedded and need no fetching.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    getter = commands.add_parser("fetch", help="bring a set into the cache and verify it")
    getter.add_argument("name", choices=sorted(known))
    getter.add_argument("--root", help="folder with the canonical files, instead of a download")
    commands.add_parser("list", help="what is cached, its size, licence and source")
    options = parser.parse_args(arguments)
    if options.command == "list":
        return show(known)
    return bring(known[options.name], options.root)


def bring(source: Source, root: str | None) -> int:
    """Fill the cache with one set unless it is there, and verify it."""
    try:
        if root is not None:
            cache.store(source, read_root(source, root), "canonical files put in by hand")
        elif not cache.is_cached(source.name):
            fetch(source)
        _, origin = cache.read(source)
    except (FetchError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    folder = cache.cache_folder() / source.name
    sys.stdout.write(f"{source.name}: verified in {folder}, from {origin}\n")
    return 0


def show(known: dict[str, Source]) -> int:
    """Print every set that can be fetched, and what an interrupted fetch left behind."""
    folder = cache.cache_folder()
    lines = [f"cache: {folder}", "digits: embedded in scikit-learn, nothing to fetch"]
    for name, source in sorted(known.items()):
        lines += [f"{name}: {_state(name)}", f"  licence: {source.licence}"]
        lines += [f"  homepage: {source.homepage}"]
    for left in sorted(folder.glob("*.partial-*")):
        lines.append(f"{left.name}: {_megabytes(left):.1f} MB of a fetch under way or interrupted")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _state(name: str) -> str:
    if not cache.is_cached(name):
        return "not cached"
    try:
        return f"{_megabytes(cache.cache_folder() / name):.1f} MB, from {cache.read_origin(name)}"
    except ValueError as error:
        return str(error)


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    sys.exit(main())
