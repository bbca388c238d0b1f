"""Figures: the Pareto front is one, and equal data give equal bytes."""

import random
from pathlib import Path

import matplotlib
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from qjax.results.figures import Candidate, Panel, Series, accuracy_over_bits, front, pareto


def candidate(cost: int, accuracy: float) -> Candidate:
    return Candidate(f"{cost}", "digits", "pact", cost, accuracy, None)


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(pairs: list[tuple[int, int]]) -> None:
    best = {(c.cost, c.accuracy) for c in front([candidate(*pair) for pair in pairs])}
    expected = {
        (cost, accuracy)
        for cost, accuracy in pairs
        if not any((c <= cost and a >= accuracy) and (c, a) != (cost, accuracy) for c, a in pairs)
    }
    assert best == expected


def draw(folder: Path, order: list[int]) -> list[bytes]:
    """Both figures from points in the given order."""
    bits = [(2, 2, 32, 32), (4, 4, 32, 32), (8, 8, 32, 32)]
    points = tuple((bits[i], 90.0 + i, 0.5) for i in order)
    panel = Panel("digits, cnn", (Series("ours", "pact", False, points),))
    accuracy_over_bits([panel], folder / "bits.png")
    pareto([candidate(10 * (i + 1), 90.0 + i) for i in order], "bytes", folder / "pareto.png")
    return [(folder / name).read_bytes() for name in ("bits.png", "pareto.png")]


def test_bytes_do_not_depend_on_the_order_or_the_users_style(tmp_path: Path) -> None:
    first = draw(tmp_path / "a", [0, 1, 2])
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 37}):
        second = draw(tmp_path / "b", random.Random(1).sample([0, 1, 2], 3))
    assert first == second
    assert all(b"Matplotlib" not in content and b"Software" not in content for content in first)


def test_the_picture_shows_the_points(tmp_path: Path) -> None:
    draw(tmp_path, [0, 1, 2])
    pixels = imread(tmp_path / "bits.png")
    blue = (abs(pixels[..., :3] - [0x1F / 255, 0x77 / 255, 0xB4 / 255]) < 0.02).all(axis=-1)
    assert blue.sum() > 200
