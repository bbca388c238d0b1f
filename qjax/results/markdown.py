"""Markdown and CSV text from rows. Equal rows give equal bytes: no dates, no paths, no locale."""

import csv
import io
from collections.abc import Sequence

from qjax.results.aggregate import Difference, Summary
from qjax.results.expected import Expected, Range

Bits = tuple[int, int, int, int]
Cell = str | int | float | None


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table; a bar inside a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def csv_text(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """CSV with a header line and line feeds; None is an empty cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def summary_cell(summary: Summary | None) -> str:
    """`91.30 ± 0.12 (n=3)` in percent; a dash for nothing."""
    if summary is None:
        return "–"
    spread = "" if summary.std is None else f" ± {summary.std:.2f}"
    return f"{summary.mean:.2f}{spread} (n={summary.n})"


def difference_cell(difference: Difference | None) -> str:
    """`-0.40 [-0.71, -0.09]` in points, in bold where the interval leaves zero out."""
    if difference is None:
        return "–"
    if difference.low is None or difference.high is None:
        return f"{difference.mean:+.2f} (one pair: no interval)"
    text = f"{difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]"
    return f"**{text}**" if difference.is_clear else text


def range_cell(value: Range | None) -> str:
    """`91.3`, or `96.8 to 96.9` where a range was printed; a dash for nothing."""
    if value is None:
        return "–"
    ends = [f"{round(end, 4):g}" for end in (value.low, value.high)]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def published_cell(row: Expected) -> str:
    """The figure in percent correct, with what was printed where that is something else."""
    if not row.is_converted:
        return row.printed
    as_printed = f"{row.metric} {row.printed}"
    return f"{range_cell(row.accuracy)} ({as_printed})" if row.accuracy else as_printed


def bits_text(bits: Bits) -> str:
    """`4/4` (weights/activations); gradients and errors follow where they are quantized too."""
    shown = bits if bits[2:] != (32, 32) else bits[:2]
    return "/".join(map(str, shown))
