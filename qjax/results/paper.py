"""The page of one paper: published figures, ours beside them, our runs without a counterpart."""

from collections.abc import Sequence
from dataclasses import dataclass

from qjax.results.aggregate import Group
from qjax.results.compare import Comparison, compare, float_reference, unmatched
from qjax.results.expected import Expected
from qjax.results.figures import Panel, Series
from qjax.results.markdown import (
    bits_text,
    markdown_table,
    published_cell,
    range_cell,
    summary_cell,
)

_READING = """\
Accuracies are top-1 percent; a published error or fraction is converted and stands in brackets as
it was printed. Ours is the mean over n seeds, with the standard deviation. A row is **off** when it
differs from the published figure by more than that spread plus half a unit of the last printed
digit. Rows marked *unverified* were quoted from memory and not checked against the paper.
"""
_COLUMNS = (
    "Method",
    "Network",
    "Bits",
    "Published",
    "Its float",
    "Source",
    "Ours",
    "Ours, integer",
    "Our float",
    "Our schedule",
    "Verdict",
)


@dataclass(frozen=True)
class PaperPage:
    """A paper's published rows, and the methods whose runs belong beside them; the runs of the
    experiments in `leave_out` have pages of their own.
    """

    title: str
    methods: tuple[str, ...]
    expected: tuple[Expected, ...]
    leave_out: tuple[str, ...] = ()

    def groups(self, groups: Sequence[Group]) -> list[Group]:
        """The groups that belong on this page."""
        return [
            group
            for group in groups
            if group.first.method in self.methods and group.first.experiment not in self.leave_out
        ]

    def text(self, groups: Sequence[Group]) -> str:
        """The Markdown between the page's heading and its figures."""
        own = self.groups(groups)
        comparisons = compare(self.expected, own)
        parts = [_READING, _overview(comparisons)]
        for name, rows in _by_table(comparisons).items():
            cells = [_cells(row, groups) for row in rows]
            parts.append(f"## {name}\n\n{markdown_table(_COLUMNS, cells)}")
        parts.append(
            "## Our runs without a published counterpart\n\n" + _rest(own, comparisons, groups)
        )
        return "\n".join(parts)

    def panels(self, groups: Sequence[Group]) -> list[Panel]:
        """A panel for each network that we ran, or could compare: published series, then ours."""
        own = self.groups(groups)
        shown = [row for row in self.expected if row.match and row.accuracy and row.verified]
        places = {(row.match.data, row.match.model) for row in shown if row.match}
        places |= {(group.first.data, group.first.model) for group in own}
        return [
            Panel(f"{data}, {model}", (*_published(shown, data, model), *_ours(own, data, model)))
            for data, model in sorted(places)
        ]


def _by_table(comparisons: Sequence[Comparison]) -> dict[str, list[Comparison]]:
    """Comparisons by published table, in the published order, rows from elsewhere last."""
    tables: dict[str, list[Comparison]] = {}
    for comparison in sorted(comparisons, key=lambda c: not c.expected.table):
        name = comparison.expected.table or "Other sources"
        tables.setdefault(name, []).append(comparison)
    return tables


def _overview(comparisons: Sequence[Comparison]) -> str:
    rows = {id(c.expected): c.expected for c in comparisons}.values()
    run = {id(c.expected) for c in comparisons if c.group}
    near = {id(c.expected) for c in comparisons if c.group and not c.is_off}
    comparable = [row for row in rows if row.match and row.verified]
    text = (
        f"{len(rows)} published rows: {len(run)} with a run of ours, "
        f"{len(run - near)} of these off under every schedule; "
        f"{sum(not row.verified for row in rows)} unverified.\n"
    )
    if not comparable:
        text += (
            "\nNo comparable verified figure exists: none of these rows speaks of a network and "
        )
        text += "data set that are run here, or none is verified.\n"
    return text


def _cells(row: Comparison, groups: Sequence[Group]) -> list[str]:
    expected, group = row.expected, row.group
    source = "" if expected.source == expected.table else expected.source
    return [
        expected.method,
        f"{expected.dataset}, {expected.network}",
        bits_text(expected.bits),
        published_cell(expected),
        range_cell(expected.baseline),
        source if expected.verified else f"{source} (*unverified*)",
        summary_cell(row.ours),
        summary_cell(group.summary("integer") if group else None),
        summary_cell(float_reference(group, groups) if group else None),
        group.schedule if group else "–",
        row.verdict,
    ]


def _rest(own: Sequence[Group], comparisons: Sequence[Comparison], groups: Sequence[Group]) -> str:
    rows = [
        [
            group.first.method,
            f"{group.first.data}, {group.first.model}",
            bits_text(group.bits),
            group.schedule,
            summary_cell(group.headline()),
            summary_cell(group.summary("integer")),
            summary_cell(float_reference(group, groups)),
        ]
        for group in unmatched(own, comparisons)
    ]
    if not rows:
        return "No run.\n"
    header = ("Method", "Network", "Bits", "Schedule", "Simulated", "Integer", "Float")
    return markdown_table(header, rows)


def _published(rows: Sequence[Expected], data: str, model: str) -> list[Series]:
    """One series for each method, table and recipe; a printed range is drawn at its middle."""
    series: dict[tuple[str, str], list[tuple]] = {}
    for row in rows:
        assert row.match is not None and row.accuracy is not None
        if (row.match.data, row.match.model) == (data, model):
            label = f"{row.method}, {row.table or row.source} {row.match.recipe or ''}".strip()
            middle = (row.accuracy.low + row.accuracy.high) / 2
            series.setdefault((row.match.method, label), []).append((row.bits, middle, None))
    return [
        Series(f"{label} (published)", method, True, tuple(points))
        for (method, label), points in series.items()
    ]


def _ours(groups: Sequence[Group], data: str, model: str) -> list[Series]:
    """One series for each method and schedule."""
    series: dict[tuple[str, str], list[tuple]] = {}
    for group in groups:
        found = group.headline()
        if (group.first.data, group.first.model) == (data, model) and found is not None:
            key = (group.first.method, f"{group.first.method}, {group.schedule}")
            series.setdefault(key, []).append((group.bits, found.mean, found.std))
    return [
        Series(f"{label} (ours)", method, False, tuple(points))
        for (method, label), points in series.items()
    ]
