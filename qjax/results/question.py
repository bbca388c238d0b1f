"""The page of an open question: tables of one field of a record against another."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qjax.results.aggregate import Group, paired_difference
from qjax.results.figures import Chart, Line
from qjax.results.markdown import bits_text, difference_cell, markdown_table, summary_cell

_READING = """\
Mean top-1 percent over n seeds, with the standard deviation. Differences are paired by seed, in
points, with a 95 % Student t interval; bold where the interval leaves zero out. The intervals are
not corrected for how many of them there are. *no run*: planned, but not carried out; a dash: not
planned.
"""
NO_RUN = "no run"
_BITS = "bits"
_NAMES = ("method", "recipe", "target", "bn", "procedure", "model", "data")
_FIELDS = (*_NAMES, "w_bits", "a_bits", "e_bits", "g_bits", _BITS)

Cells = dict[tuple[str, str], Group]


@dataclass(frozen=True)
class Question:
    """One table: a line for each value of `rows`, a column for each value of `columns`.

    `rows` and `columns` name a field of a record, or are "bits" for the widths that matter.
    `where` says which runs belong here: a value, or a list of values, for each field it names.
    `reference` is the row that the others are compared with, in their own column or, where it was
    run in one column only, in that. `order` is the order of the columns, alphabetical by default.
    `planned` names the columns that each row is to be run in: without a run they say so.
    """

    title: str
    where: dict[str, Any]
    rows: str
    columns: str
    reference: str
    order: Sequence[Any] = ()
    planned: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(isinstance(columns, list) for columns in self.planned.values()):
            raise ValueError(
                f"planned must be a list of columns for each row it names; got {self.planned!r}"
            )
        for name in (self.rows, self.columns):
            if name not in _FIELDS:
                raise ValueError(
                    f"rows and columns must be one of {', '.join(_FIELDS)}; got {name!r}"
                )

    def cells(self, groups: Sequence[Group]) -> Cells:
        """The group of each row and column."""
        found: Cells = {}
        for group in filter(self._belongs, groups):
            place = _value(group, self.rows), _value(group, self.columns)
            if place in found:
                first, second = found[place].first, group.first
                raise ValueError(
                    f"{self.title}: {place[0]} at {place[1]} has runs of several configurations, "
                    f"{first.config_hash} ({found[place].schedule}) and {second.config_hash} "
                    f"({group.schedule}); name what they differ in under where, or leave one out"
                )
            found[place] = group
        return found

    def text(self, groups: Sequence[Group]) -> str:
        """The table of accuracies, and the one of differences."""
        cells = self.cells(groups)
        if not cells:
            return f"## {self.title}\n\nNo run.\n"
        header = [self.rows, *(f"{self.columns} {name}" for name in self._columns(cells))]
        accuracies = markdown_table(header, [self._row(cells, name) for name in self._rows(cells)])
        rows = [self._against(cells, name) for name in self._rows(cells) if name != self.reference]
        text = f"## {self.title}\n\n{_shared(list(cells.values()))}\n{accuracies}"
        if rows:
            text += f"\nDifference from {self.reference}:\n\n{markdown_table(header, rows)}"
        return text

    def chart(self, groups: Sequence[Group]) -> Chart | None:
        """What the first table shows, drawn; None where nothing was run."""
        cells = self.cells(groups)
        columns, alone = self._columns(cells), self._alone(cells)
        lines = []
        for name in self._rows(cells):
            found = [cells[name, c].headline() if (name, c) in cells else None for c in columns]
            if any(found):
                lines.append(Line(name, tuple((f.mean, f.std) if f else None for f in found)))
        if not any(line.label != self.reference for line in lines):
            return None
        level = alone.headline() if alone is not None else None
        drawn = (self.reference, level.mean) if level is not None else None
        return Chart(self.title, self.columns, tuple(columns), tuple(lines), drawn)

    def _belongs(self, group: Group) -> bool:
        if group.headline() is None:
            return False
        for name, wanted in self.where.items():
            allowed = wanted if isinstance(wanted, list) else [wanted]
            if getattr(group.first, name) not in allowed:
                return False
        return True

    def _rows(self, cells: Cells) -> list[str]:
        names = sorted({row for row, _ in cells} | self.planned.keys())
        return sorted(names, key=lambda name: name != self.reference)

    def _columns(self, cells: Cells) -> list[str]:
        wanted = [str(value) for value in self.order]
        # A reference that has one column of its own (float) shares the others' columns.
        names = {column for row, column in cells if row != self.reference} | self._planned()
        names = names or {column for _, column in cells}
        return sorted(names, key=lambda n: (wanted.index(n) if n in wanted else len(wanted), n))

    def _row(self, cells: Cells, name: str) -> list[str]:
        alone = self._alone(cells)
        if name == self.reference and alone is not None:
            return [name, *[summary_cell(alone.headline())] * len(self._columns(cells))]
        row = [name]
        for column in self._columns(cells):
            found = cells.get((name, column))
            row.append(summary_cell(found.headline()) if found else self._missing(name, column))
        return row

    def _against(self, cells: Cells, name: str) -> list[str]:
        row = [name]
        for column in self._columns(cells):
            ours = cells.get((name, column))
            reference = cells.get((self.reference, column)) or self._alone(cells)
            if ours is None or reference is None:
                missing = self._missing(name, column)
                row.append(missing if ours is None else f"no run of {self.reference}")
                continue
            row.append(difference_cell(paired_difference(_by_seed(ours), _by_seed(reference))))
        return row

    def _planned(self) -> set[str]:
        return {str(column) for columns in self.planned.values() for column in columns}

    def _missing(self, row: str, column: str) -> str:
        """What stands in a cell without a run."""
        is_planned = column in map(str, self.planned.get(row, []))
        return NO_RUN if is_planned or not self.planned else summary_cell(None)

    def _alone(self, cells: Cells) -> Group | None:
        """The reference's group, where it was run in one column that no other row has."""
        found = [column for row, column in cells if row == self.reference]
        others = {column for row, column in cells if row != self.reference} | self._planned()
        if len(found) != 1 or found[0] in others:
            return None
        return cells[self.reference, found[0]]


@dataclass(frozen=True)
class QuestionPage:
    """The tables of one question; `pareto` draws the fronts over bytes and operations too."""

    title: str
    tables: tuple[Question, ...]
    pareto: bool = field(default=False)

    def groups(self, groups: Sequence[Group]) -> list[Group]:
        """The groups that belong on this page, each once."""
        found = [group for table in self.tables for group in table.cells(groups).values()]
        return list({group.first.group_hash: group for group in found}.values())

    def text(self, groups: Sequence[Group]) -> str:
        """The Markdown between the page's heading and its figures."""
        return "\n".join([_READING, *(table.text(groups) for table in self.tables)])

    def charts(self, groups: Sequence[Group]) -> list[Chart]:
        """A chart for each table that has runs."""
        return [chart for table in self.tables if (chart := table.chart(groups)) is not None]


def _value(group: Group, name: str) -> str:
    if name == _BITS:
        return bits_text(group.bits)
    value = getattr(group.first, name)
    if value is None:
        return "not recorded" if name in _NAMES else "float"
    return str(value)


def _by_seed(group: Group) -> dict[int, float]:
    return group.by_seed("simulated") or group.by_seed("float")


def _shared(groups: Sequence[Group]) -> str:
    runs = [run for group in groups for run in group.runs]
    places = sorted({f"{run.data}, {run.model}" for run in runs})
    epochs = sorted({run.epochs for run in runs})
    return (
        f"{'; '.join(places)}. {len(runs)} runs of {' or '.join(f'{e:g}' for e in epochs)} epochs, "
        f"{sum(run.seconds for run in runs) / 3600:.2f} hours together.\n"
    )
