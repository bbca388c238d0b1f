"""Means, spreads and paired intervals over seeds. Accuracies are in percent from here on."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.special import stdtrit

from qjax.results.schema import RunRecord

USUAL = {"procedure": ("scratch", "float"), "bn": ("separate",)}
"""What schedules leave unsaid, as they do what an older record does not say."""

Form = Literal["float", "simulated", "integer"]


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (n - 1 below the line; None for one run) of n runs."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences with a two-sided t interval; no interval for a single pair."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seeds, ordered by seed."""

    runs: tuple[RunRecord, ...]

    @property
    def first(self) -> RunRecord:
        """Any of the runs, for what all share."""
        return self.runs[0]

    @property
    def bits(self) -> tuple[int, int, int, int]:
        """Bits of weights, activations, gradients and errors; 32 is float."""
        run = self.first
        return run.w_bits, run.a_bits, run.g_bits or 32, run.e_bits or 32

    @property
    def schedule(self) -> str:
        """What a reader must know beside method and bits: recipe, target, epochs, and what is not
        usual (batch normalization that is not separate, a procedure that is not from scratch).
        """
        target = "" if self.first.target == "none" else f" for {self.first.target}"
        parts = [f"{self.first.recipe}{target}", f"{self.first.epochs:g} epochs"]
        for name, usual in USUAL.items():
            # Runs of one configuration, of which older records may not say it.
            said = {getattr(run, name) for run in self.runs} - {None, *usual}
            parts += [f"{name} {value}" for value in sorted(said)]
        return ", ".join(parts)

    def by_seed(self, form: Form) -> dict[int, float]:
        """Percent correct of one form, by seed; runs without that form are left out."""
        values = {run.seed: accuracy(run, form) for run in self.runs}
        if len(values) < len(self.runs):
            raise ValueError(
                f"seed: two runs of the group of {self.first.config_hash} "
                f"({self.first.experiment}) have the same; leave one of them out"
            )
        return {seed: 100 * value for seed, value in values.items() if value is not None}

    def summary(self, form: Form) -> Summary | None:
        """Mean and spread of one form; None when no run has it."""
        values = list(self.by_seed(form).values())
        return summarize(values) if values else None

    def headline(self) -> Summary | None:
        """The simulated network's accuracy; the float network's where nothing is quantized."""
        return self.summary("simulated") or self.summary("float")


def accuracy(run: RunRecord, form: Form) -> float | None:
    """Fraction correct of one form, None where it was not measured or there is none.

    Older records give an integer accuracy where no layer with weights was integer.
    """
    if form == "integer" and not run.integer["accumulator_bits"]:
        return None
    return run.accuracy[form]


def group(records: Sequence[RunRecord]) -> list[Group]:
    """Groups runs by `group_hash`, in the order of the first run of each."""
    gathered: dict[str, list[RunRecord]] = {}
    for record in records:
        gathered.setdefault(record.group_hash, []).append(record)
    return [Group(tuple(sorted(runs, key=lambda run: run.seed))) for runs in gathered.values()]


def summarize(values: Sequence[float]) -> Summary:
    """Mean and spread of at least one number."""
    std = statistics.stdev(values) if len(values) > 1 else None
    return Summary(statistics.fmean(values), std, len(values))


def paired_difference(
    ours: Mapping[int, float], reference: Mapping[int, float], confidence: float = 0.95
) -> Difference | None:
    """Mean of `ours - reference` over the seeds both have; None when they share none.

    Pairing by seed takes out what a seed does to every method alike (data order, first weights).
    Student's t fits the three to ten seeds of a table; a bootstrap of so few is too narrow.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    seeds = sorted(ours.keys() & reference.keys())
    if not seeds:
        return None
    differences = [ours[seed] - reference[seed] for seed in seeds]
    found = summarize(differences)
    if found.std is None:
        return Difference(found.mean, None, None, 1)
    half = float(stdtrit(found.n - 1, (1 + confidence) / 2)) * found.std / found.n**0.5
    return Difference(found.mean, found.mean - half, found.mean + half, found.n)
