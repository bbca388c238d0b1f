"""Figures of a results page: accuracy over bits, and the Pareto front over a cost.

The same rows give the same bytes: a fixed backend, style and size, and no date or version inside.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from qjax.results.markdown import Bits, bits_text


@dataclass(frozen=True)
class Series:
    """Percent correct over bits: points of (bits, mean, standard deviation or None).

    Series of one `method` share a colour; published ones are hollow and dashed.
    """

    label: str
    method: str
    is_published: bool
    points: tuple[tuple[Bits, float, float | None], ...]


@dataclass(frozen=True)
class Panel:
    """One network on one data set; `float_accuracy` is drawn as a line where it is known."""

    title: str
    series: tuple[Series, ...]
    float_accuracy: float | None = None


@dataclass(frozen=True)
class Line:
    """A row of a table: (mean, standard deviation or None) for each column, None for no run."""

    label: str
    cells: tuple[tuple[float, float | None] | None, ...]


@dataclass(frozen=True)
class Chart:
    """A table, drawn: a line for each row over the table's columns.

    `level` is a row of one number for all columns, with its name.
    """

    title: str
    axis: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    level: tuple[str, float] | None = None


@dataclass(frozen=True)
class Candidate:
    """A network to weigh by cost (bytes or bit operations, lower is better) and percent correct.

    `label` stands beside it where it lies on the front.
    """

    label: str
    data: str
    method: str
    cost: int
    accuracy: float
    std: float | None


def accuracy_over_bits(panels: Sequence[Panel], path: Path) -> None:
    """Draws one panel each, bits from few to many, with a bar of one standard deviation."""
    colours = _colours([series.method for panel in panels for series in panel.series])
    with _page(len(panels), path) as axes:
        for axis, panel in zip(axes, panels, strict=True):
            bits = sorted({point[0] for series in panel.series for point in series.points})
            for series, marker in zip(panel.series, cycle("os^Dv<>P"), strict=False):
                _draw_series(axis, series, bits, colours[series.method], marker)
            if panel.float_accuracy is not None:
                _draw_level(axis, "float", panel.float_accuracy)
            names = [bits_text(value) for value in bits]
            is_long = any(name.count("/") > 1 for name in names)
            axis.set_xticks(range(len(bits)), names, rotation=45 if is_long else 0)
            axis.set_xlabel(
                "weights/activations" + ("/gradients/errors, bits" if is_long else ", bits")
            )
            _label_accuracy(axis)
            axis.set_title(panel.title)
            axis.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))


def accuracy_over_columns(charts: Sequence[Chart], path: Path) -> None:
    """Draws one chart each: a mark for each row of a column, with a bar of one deviation."""
    with _page(len(charts), path) as axes:
        for axis, chart in zip(axes, charts, strict=True):
            count = len(chart.lines)
            for index, (line, marker) in enumerate(
                zip(chart.lines, cycle("os^Dv<>P"), strict=False)
            ):
                # Side by side, so that bars of equal rows stay apart.
                shift = 0.4 * ((index + 0.5) / count - 0.5)
                found = [(x + shift, *cell) for x, cell in enumerate(line.cells) if cell]
                axis.errorbar(
                    [point[0] for point in found],
                    [point[1] for point in found],
                    yerr=[point[2] or 0.0 for point in found],
                    fmt=f"{marker}-",
                    color=f"C{index % 10}",
                    linewidth=0.8,
                    capsize=3,
                    label=line.label,
                )
            if chart.level is not None:
                _draw_level(axis, *chart.level)
            axis.set_xticks(range(len(chart.columns)), chart.columns)
            axis.set_xlabel(chart.axis)
            _label_accuracy(axis)
            axis.set_title(chart.title)
            axis.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))


def pareto(candidates: Sequence[Candidate], cost_name: str, path: Path) -> None:
    """Draws accuracy over cost, a panel for each data set, the front as a step line."""
    data_sets = sorted({candidate.data for candidate in candidates})
    colours = _colours([candidate.method for candidate in candidates])
    with _page(len(data_sets), path) as axes:
        for axis, data in zip(axes, data_sets, strict=True):
            here = [candidate for candidate in candidates if candidate.data == data]
            for method in sorted({candidate.method for candidate in here}):
                points = [candidate for candidate in here if candidate.method == method]
                axis.errorbar(
                    [candidate.cost for candidate in points],
                    [candidate.accuracy for candidate in points],
                    yerr=[candidate.std or 0.0 for candidate in points],
                    color=colours[method],
                    fmt="o",
                    capsize=3,
                    label=method,
                )
            _draw_front(axis, front(here))
            axis.set_xscale("log")
            axis.margins(x=0.2)
            axis.set_xlabel(cost_name)
            _label_accuracy(axis)
            axis.set_title(data)
            axis.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))


def front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that no other beats: each costs more than the last and is more accurate."""
    best: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.cost, -c.accuracy, c.label)):
        if not best or candidate.accuracy > best[-1].accuracy:
            best.append(candidate)
    return best


def _draw_series(
    axis: Axes, series: Series, bits: Sequence[Bits], colour: str, marker: str
) -> None:
    points = sorted(series.points, key=lambda point: point[0])
    axis.errorbar(
        [bits.index(point[0]) for point in points],
        [point[1] for point in points],
        yerr=None if series.is_published else [point[2] or 0.0 for point in points],
        color=colour,
        linestyle="--" if series.is_published else "-",
        marker=marker,
        markerfacecolor="white" if series.is_published else colour,
        capsize=3,
        label=series.label,
    )


def _draw_level(axis: Axes, label: str, accuracy: float) -> None:
    axis.axhline(accuracy, color="0.5", linestyle=":", label=label)


def _label_accuracy(axis: Axes) -> None:
    axis.set_ylabel("accuracy (%)")
    axis.set_ylim(top=min(axis.get_ylim()[1], 100.5))


def _draw_front(axis: Axes, best: Sequence[Candidate]) -> None:
    costs = [candidate.cost for candidate in best]
    accuracies = [candidate.accuracy for candidate in best]
    axis.step(costs, accuracies, where="post", color="0.5", linewidth=1, label="Pareto front")
    for candidate in best:
        place = (candidate.cost, candidate.accuracy)
        axis.annotate(
            candidate.label,
            place,
            xytext=(-4, 6),
            textcoords="offset points",
            horizontalalignment="right",
            fontsize="x-small",
        )


def _colours(methods: Sequence[str]) -> dict[str, str]:
    return {method: f"C{index % 10}" for index, method in enumerate(sorted(set(methods)))}


@contextmanager
def _page(count: int, path: Path) -> Iterator[list[Axes]]:
    """Gives `count` axes, one below the other with room for a legend, and saves them at the end."""
    with matplotlib.rc_context():
        # A user's own style file must not change the bytes.
        matplotlib.rcdefaults()
        figure = Figure(figsize=(9, 4 * count), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        yield [figure.add_subplot(count, 1, index + 1) for index in range(count)]
        path.parent.mkdir(parents=True, exist_ok=True)
        # Matplotlib writes its version into a PNG unless told not to.
        figure.savefig(path, metadata={"Software": None})
