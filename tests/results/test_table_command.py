"""`python -m qjax.table`: its arguments, its exit codes, and the folders of this repository."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qjax.results.aggregate import group
from qjax.results.collect import collect
from qjax.results.expected import read_expected
from qjax.results.page import load_page, write_page
from qjax.table import main

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FOLDERS = sorted(path.parent for path in EXPERIMENTS.glob("*/table.yaml"))
PAPERS = [folder for folder in FOLDERS if (folder / "expected.csv").exists()]

Save = Callable[..., Path]


def test_one_page_is_written_where_asked(
    save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save("made/a", simulated=0.9)
    arguments = ["paper=pact", f"records={tmp_path / 'made'}", f"out={tmp_path / 'out'}"]
    assert main(arguments) == 0
    text = (tmp_path / "out/pact/table.md").read_text()
    # The run answers two rows: Table 1, and Table 2 with the first and last layer in float.
    assert "84 published rows: 2 with a run of ours" in text
    assert str(tmp_path / "out/pact/table.md") in capsys.readouterr().out


def test_all_pages_are_written_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    command = [sys.executable, "-m", "qjax.table", "paper=all", "records=none", "out=tables"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == [
        folder.name for folder in FOLDERS
    ]


def test_runs_of_the_current_folder_are_read(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("multirun/sweep/0", simulated=0.1234)
    monkeypatch.chdir(tmp_path)
    assert main(["paper=pact", "out=tables"]) == 0
    assert "12.34 (n=1)" in (tmp_path / "tables/pact/table.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["paper=poct"], "paper must be all or one of dorefa, eight_bit_training, elq, fqn, lsq, "),
        (["records=."], "got None"),
        (["paper"], "arguments must be KEY=VALUE with KEY one of paper, records, out, keep; got"),
        (["papers=pact"], "got 'papers=pact'"),
        (["paper=pact", "paper=lsq"], "paper must be given once"),
        (["paper=pact", "records=nowhere"], "records must be folders that exist, got nowhere"),
        (["paper=pact", "keep=yes"], "keep must be true or false, got yes"),
    ],
)
def test_a_wrong_argument_is_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_help_and_no_arguments_show_the_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert (main(["--help"]), main([])) == (0, 2)
    assert capsys.readouterr().out.count("paper=all") == 2


def test_a_broken_record_is_told_and_left_out(
    save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save("made/broken", simulated=2)
    assert main(["paper=pact", f"records={tmp_path / 'made'}", f"out={tmp_path / 'out'}"]) == 0
    assert "broken/result.json: accuracy.simulated must be" in capsys.readouterr().err


def test_a_page_that_fails_stops_no_other(
    save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save("made/a", simulated=0.9)
    save("made/b", simulated=0.9, epochs=20)
    assert main(["paper=all", f"records={tmp_path / 'made'}", f"out={tmp_path / 'out'}"]) == 1
    assert "error: paper=one_recipe: pact 4/4" in capsys.readouterr().err
    assert (tmp_path / "out/pact/table.md").exists()


def test_records_are_kept_for_a_clone(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = shutil.ignore_patterns("records")
    shutil.copytree(EXPERIMENTS / "pact", tmp_path / "experiments" / "pact", ignore=without)
    monkeypatch.setattr("qjax.table._CHECKOUT", tmp_path)
    monkeypatch.chdir(tmp_path)
    run = save("runs/a", simulated=0.9)
    save("runs/b", simulated=0.9, method="elsewhere")
    assert main(["paper=pact", "keep=true"]) == 0
    before = (tmp_path / "experiments/pact/table.md").read_bytes()
    kept = [path.parent.name for path in (tmp_path / "experiments/pact/records").glob("*/*")]
    assert kept == [json.loads((run / "result.json").read_text())["config_hash"]]
    shutil.rmtree(tmp_path / "runs")
    assert main(["paper=pact"]) == 0
    assert (tmp_path / "experiments/pact/table.md").read_bytes() == before


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_committed_tables_follow_from_committed_records(folder: Path, tmp_path: Path) -> None:
    groups = group(collect([folder / "records"]).records)
    write_page(load_page(folder), folder.name, groups, tmp_path)
    for name in ("table.md", "measured.csv"):
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes(), (
            f"run `python -m qjax.table paper={folder.name} keep=true` and commit what it changes"
        )
    drawn = {path.name for path in (tmp_path / "figures").glob("*")}
    assert drawn == {path.name for path in (folder / "figures").glob("*")}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_has_its_headings_and_commands(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## Claim", "## Run", "## Differences", "## Result"]
    assert "(table.md)" in text
    assert os.access(folder / "run.sh", os.X_OK)
    subprocess.run(["bash", "-n", folder / "run.sh"], check=True)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_readme_tells_which_commands_cannot_run_yet(folder: Path) -> None:
    script = "".join(path.read_text() for path in [folder / "run.sh", *folder.glob("*.txt")])
    lists = re.findall(r"for experiment in ([\w ]+);", script)
    named = {*re.findall(r"\+experiment=(\w+)", script), *" ".join(lists).split()}
    built = {path.stem for path in (EXPERIMENTS.parent / "conf" / "experiment").glob("*.yaml")}
    told = set(
        re.findall(r"Not built yet: `\+experiment=(\w+)`", (folder / "README.md").read_text())
    )
    assert named
    assert told == named - built, f"bring 'Not built yet' in {folder.name}/README.md up to date"


def test_published_figures_are_the_papers() -> None:
    """A few figures known from the papers themselves."""
    rows = {folder.name: read_expected(folder / "expected.csv") for folder in PAPERS}
    known = [
        ("pact", "PACT", "ResNet-20", (2, 2, 32, 32), 89.7),
        ("pact", "DoReFa", "ResNet-20", (4, 4, 32, 32), 90.5),
        ("wage", "WAGE", "LeNet 32C5-64C5-512FC", (2, 8, 8, 8), 99.6),
        ("wage", "WAGE", "VGG7-like", (2, 8, 8, 8), 93.22),
        ("lsq", "LSQ", "ResNet-18 pre-act", (3, 3, 32, 32), 70.2),
        ("whitepaper", "QAT sym per-channel", "MobileNet-v1-1-224", (8, 8, 32, 32), 70.7),
    ]
    for paper, method, network, bits, accuracy in known:
        found = [
            row.accuracy.low
            for row in rows[paper]
            if (row.method, row.network, row.bits) == (method, network, bits) and row.accuracy
        ]
        assert accuracy in found
    assert not any(row.verified for row in rows["elq"] + rows["fqn"])
