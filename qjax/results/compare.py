"""Our runs beside published figures, with a verdict for each row."""

from collections.abc import Sequence
from dataclasses import dataclass

from qjax.results.aggregate import Group, Summary
from qjax.results.expected import Expected

NO_RUN = "no run"


@dataclass(frozen=True)
class Comparison:
    """A published row and one group of our runs; `group` None where nothing was run for it."""

    expected: Expected
    group: Group | None

    @property
    def ours(self) -> Summary | None:
        """Our accuracy in percent."""
        return self.group.headline() if self.group else None

    @property
    def difference(self) -> float | None:
        """Ours less the published accuracy, in points; from the nearer end of a printed range."""
        if self.ours is None or self.expected.accuracy is None:
            return None
        published = self.expected.accuracy
        return self.ours.mean - min(max(self.ours.mean, published.low), published.high)

    @property
    def is_off(self) -> bool:
        """Whether we miss the published figure by more than our spread over seeds.

        The spread is one standard deviation, plus half a unit of the last digit that was printed.
        A single seed has no spread, so it is never judged.
        """
        if self.difference is None or self.ours is None or self.ours.std is None:
            return False
        assert self.expected.accuracy is not None
        return abs(self.difference) > self.ours.std + self.expected.accuracy.rounding

    @property
    def verdict(self) -> str:
        """The comparison in words, for the last column of a table."""
        if self.difference is None or self.ours is None:
            return NO_RUN
        if self.ours.std is None:
            return f"{self.difference:+.2f}, one seed: no spread to judge by"
        return f"**off: {self.difference:+.2f}**" if self.is_off else "within the spread"


def compare(expected: Sequence[Expected], groups: Sequence[Group]) -> list[Comparison]:
    """One comparison for each published row and group that matches it, in the published order.

    Several groups match where schedules differ: all are listed, none is chosen. A row that nothing
    matches is listed without a group.
    """
    rows = []
    for row in expected:
        found = [group for group in groups if _matches(row, group)]
        rows += [Comparison(row, group) for group in found or [None]]
    return rows


def unmatched(groups: Sequence[Group], comparisons: Sequence[Comparison]) -> list[Group]:
    """The groups that no published row compares with."""
    used = {c.group.first.group_hash for c in comparisons if c.group}
    return [group for group in groups if group.first.group_hash not in used]


def float_reference(group: Group, groups: Sequence[Group]) -> Summary | None:
    """Our float accuracy for `group`: of its own float phase, else of the float run like it.

    None where there is not exactly one that is like it, see `float_groups`.
    """
    own = group.summary("float")
    if own is not None:
        return own
    alike = float_groups(group, groups)
    return alike[0].headline() if len(alike) == 1 else None


def float_groups(group: Group, groups: Sequence[Group]) -> list[Group]:
    """The float groups of the same data, model and epochs; where there are several, those of the
    same experiment.
    """
    run = group.first
    alike = [
        other
        for other in groups
        if (other.first.w_bits, other.first.a_bits) == (32, 32)
        and (other.first.data, other.first.model, other.first.epochs)
        == (run.data, run.model, run.epochs)
    ]
    if len(alike) > 1:
        alike = [other for other in alike if other.first.experiment == run.experiment]
    return alike


def _matches(row: Expected, group: Group) -> bool:
    if row.match is None or group.headline() is None:
        return False
    run, match = group.first, row.match
    same = (run.method, run.data, run.model) == (match.method, match.data, match.model)
    return same and group.bits == row.bits and match.recipe in (None, run.recipe)
