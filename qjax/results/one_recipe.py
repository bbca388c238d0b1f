"""The one-recipe table: every method at the same bits, network, schedule and seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qjax.results.aggregate import Form, Group, paired_difference
from qjax.results.compare import float_reference
from qjax.results.figures import Panel, Series
from qjax.results.markdown import difference_cell, markdown_table, summary_cell

_READING = """\
Mean top-1 percent over n seeds, with the standard deviation. Differences are paired by seed, in
points, with a 95 % Student t interval; bold where the interval leaves zero out. The intervals are
not corrected for how many of them there are.
"""
_BY = ("data", "model", "recipe", "target", "bn", "procedure", "epochs", "experiment")
_NO_RUN = "no run"

Cells = dict[tuple[str, tuple[int, int]], Group]


@dataclass(frozen=True)
class OneRecipePage:
    """One table for each of `settings`, each the values that its runs share.

    `bits` are the columns (weights, activations); `reference` is the method the others are compared
    with. `methods` have a row all the same where none of their runs is there.
    """

    title: str
    reference: str
    bits: tuple[tuple[int, int], ...]
    settings: tuple[dict[str, Any], ...]
    methods: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for setting in self.settings:
            unknown = sorted(setting.keys() - set(_BY))
            if unknown or not {"data", "model"} <= setting.keys():
                raise ValueError(
                    f"settings: each must name data and model, and may name {', '.join(_BY[2:])}; "
                    f"got {', '.join(setting)}"
                )

    def groups(self, groups: Sequence[Group]) -> list[Group]:
        """The groups that belong on this page."""
        return [group for s in self.settings for group in self._cells(groups, s).values()]

    def text(self, groups: Sequence[Group]) -> str:
        """The Markdown between the page's heading and its figures."""
        parts = [_READING]
        for setting in self.settings:
            parts.append(f"## {setting['data']}, {setting['model']}\n")
            cells = self._cells(groups, setting)
            if cells:
                parts += [_shared(cells, groups), self._accuracies(cells, "simulated")]
                parts += [self._accuracies(cells, "integer"), self._differences(cells)]
            else:
                parts.append("No run.\n")
        return "\n".join(parts)

    def panels(self, groups: Sequence[Group]) -> list[Panel]:
        """A panel for each setting that has runs."""
        panels = []
        for setting in self.settings:
            series: dict[str, list[tuple]] = {}
            cells = self._cells(groups, setting)
            for (method, _), group in cells.items():
                found = group.headline()
                if found is not None:
                    series.setdefault(method, []).append((group.bits, found.mean, found.std))
            if series:
                lines = (Series(m, m, False, tuple(points)) for m, points in series.items())
                level = float_reference(next(iter(cells.values())), groups)
                title = f"{setting['data']}, {setting['model']}"
                panels.append(Panel(title, tuple(lines), level.mean if level else None))
        return panels

    def _cells(self, groups: Sequence[Group], setting: dict[str, Any]) -> Cells:
        """The group of each method and bits, methods in alphabetical order."""
        cells: Cells = {}
        for group in sorted(groups, key=lambda g: g.first.method):
            run = group.first
            key = (run.method, (run.w_bits, run.a_bits))
            if key[1] not in self.bits or any(getattr(run, f) != v for f, v in setting.items()):
                continue
            if key in cells:
                other = cells[key].first
                raise ValueError(
                    f"{run.method} {run.w_bits}/{run.a_bits} on {run.data}, {run.model}: runs of "
                    f"several configurations, {other.config_hash} ({other.experiment}, "
                    f"{cells[key].schedule}) and {run.config_hash} ({run.experiment}, "
                    f"{group.schedule}); read one sweep with records=DIR, or add "
                    f"{', '.join(_BY[2:-1])} or {_BY[-1]} to settings in table.yaml"
                )
            cells[key] = group
        return cells

    def _accuracies(self, cells: Cells, form: Form) -> str:
        rows = []
        for method in self._methods(cells):
            found = [cells.get((method, bits)) for bits in self.bits]
            rows.append([method, *(summary_cell(g.summary(form)) if g else _NO_RUN for g in found)])
        return f"### Accuracy, {form}\n\n{markdown_table(self._header(), rows)}"

    def _differences(self, cells: Cells) -> str:
        rows = []
        for method in self._methods(cells):
            row = [method]
            for bits in self.bits:
                ours, reference = cells.get((method, bits)), cells.get((self.reference, bits))
                if ours is None or reference is None:
                    row.append(_NO_RUN if ours is None else f"no run of {self.reference}")
                    continue
                pairs = (ours.by_seed("simulated"), reference.by_seed("simulated"))
                row.append(difference_cell(paired_difference(*pairs)))
            if method != self.reference:
                rows.append(row)
        head = f"### Difference from {self.reference}, simulated\n\n"
        return head + (
            markdown_table(self._header(), rows) if rows else "No other method was run.\n"
        )

    def _methods(self, cells: Cells) -> list[str]:
        return sorted({method for method, _ in cells} | set(self.methods))

    def _header(self) -> list[str]:
        return ["Method", *(f"{w}/{a}" for w, a in self.bits)]


def _shared(cells: Cells, groups: Sequence[Group]) -> str:
    """What all runs share, or a warning where they do not, for then it is not one recipe."""
    runs = [run for group in cells.values() for run in group.runs]
    schedules = sorted({group.schedule for group in cells.values()})
    seeds = {tuple(run.seed for run in group.runs) for group in cells.values()}
    lines = [
        f"Schedule: {schedules[0]}."
        if len(schedules) == 1
        else f"**Not one recipe**: the schedules differ ({'; '.join(schedules)}).",
        f"Seeds: {', '.join(map(str, sorted(seeds)[0]))}."
        if len(seeds) == 1
        else "**The seeds differ** between cells; differences use the seeds that both cells have.",
        f"Float: {summary_cell(float_reference(next(iter(cells.values())), groups))}.",
        f"{len(runs)} runs, {sum(run.seconds for run in runs) / 3600:.2f} hours together.",
    ]
    return "\n".join(lines) + "\n"
