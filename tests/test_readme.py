"""The README's example runs as it stands, and its commands exist."""

import re
from pathlib import Path

import pytest

from tests.configs.compose import composed

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

CONF = ROOT / "conf"
CHOICE = re.compile(r"`\+?([a-z]+)=(\w+)`")
GROUPS = re.compile(r"^\| (?:`(\+?[a-z]+)=` )?\| ([^|]*)", re.M)


def group_table() -> dict[str, list[str]]:
    """The README's table of groups: word -> choices, of all its rows."""
    choices: dict[str, list[str]] = {}
    word = ""
    for named, cells in GROUPS.findall(README):
        word = named or word
        choices.setdefault(word, []).extend(re.findall(r"`(\w+)`", cells))
    return choices


def test_the_example_without_hydra(
    allow_rank_promotion: None, capsys: pytest.CaptureFixture
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    accuracy = float(capsys.readouterr().out.split()[-1])
    assert accuracy >= 0.95


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    for target in re.findall(r"^make (\w+)", README, re.M):
        assert target in targets


def test_the_table_of_groups_names_every_choice() -> None:
    for word, choices in group_table().items():
        files = sorted(path.stem for path in (CONF / word.lstrip("+")).glob("*.yaml"))
        assert sorted(choices) == files, f"README's row of {word}= must name each file once"
        default = re.search(rf"^  - {word}: (\w+)$", (CONF / "config.yaml").read_text(), re.M)
        assert default is None or choices[0] == default[1], f"{word}={default[1]} comes first"


@pytest.mark.parametrize("word", group_table())
def test_every_choice_of_the_table_composes(word: str) -> None:
    for choice in group_table()[word]:
        composed(f"{word}={choice}")


def test_choices_named_anywhere_exist() -> None:
    named = [(group, choice) for group, choice in CHOICE.findall(README) if (CONF / group).is_dir()]
    missing = [f"{group}={name}" for group, name in named if not _file(group, name).is_file()]
    assert named and not missing


def _file(group: str, name: str) -> Path:
    return CONF / group / f"{name}.yaml"
