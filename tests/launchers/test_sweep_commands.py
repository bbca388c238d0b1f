"""`-m` with every launcher: a job that fails stops nothing, one that is finished is skipped."""

import importlib.metadata
import shutil
from pathlib import Path

import pytest
import yaml

from qjax.launchers.jobs import LOG, Job
from qjax.record import read
from qjax.train import CONF
from tests.launchers.command import TINY, command, command_outside, jobs_in

PACT = ["-m", "+experiment=pact_w4a4", *TINY]


def states(folder: Path) -> list[str]:
    return [job.state for job in jobs_in(folder)]


def test_jobs_that_cannot_begin_are_reported_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert command(monkeypatch, tmp_path, *PACT, "w_bits=9,10", "act=pact,nope") == 1
    jobs = jobs_in(tmp_path)
    assert [job.overrides[-2:] for job in jobs] == [
        ("w_bits=9", "act=pact"),
        ("w_bits=10", "act=pact"),
        ("w_bits=9", "act=nope"),
        ("w_bits=10", "act=nope"),
    ], "those that cannot be composed come last"
    text = capsys.readouterr().err
    assert "sweep of 4 jobs in runs/sweeps" in text and "sweep: 4 failed" in text
    assert text.count("DoReFaWeight.bits must be a whole number from 1 to 8, got 9;") == 2
    assert "Could not find 'act/nope' Available options in 'act': dorefa" in text
    assert "Traceback" not in text and not (tmp_path / "runs" / "pact").exists()
    assert all(job.trace for job in jobs)


def test_a_mistake_in_every_job_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert command(monkeypatch, tmp_path, *PACT, "w_bits=2,3", "seeed=1") != 0
    assert "seeed" in capsys.readouterr().err and not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local", "population"])
def test_a_failing_job_stops_nothing_and_is_run_again(launcher: str, tmp_path: Path) -> None:
    if launcher in ("joblib", "submitit_local"):
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.split('_')[0]}_launcher")
    words = [*PACT, "w_bits=9,2", "optim.learning_rate=1e30,0.01", f"hydra/launcher={launcher}"]
    done = command_outside(tmp_path, *words)
    assert done.returncode == 1, done.stderr
    assert states(tmp_path) == ["failed", "failed", "failed", "done"]
    for text in ("sweep: 1 done, 3 failed", "got 9;", "NonFiniteError", "begins   w_bits=2", "ETA"):
        assert text in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    nan, good = jobs_in(tmp_path)[2:]
    assert good.folder is not None and nan.folder is not None and nan.folder != good.folder
    assert read(tmp_path / good.folder).accuracy["integer"] == good.accuracy
    assert "quantized  epoch 1/1" in (tmp_path / good.folder / LOG).read_text()
    finished = (tmp_path / good.folder / "result.json").read_bytes()
    again = command_outside(tmp_path, *words)
    assert again.returncode == 1
    assert states(tmp_path) == ["failed", "failed", "failed", "skipped"]
    assert (tmp_path / good.folder / "result.json").read_bytes() == finished
    shutil.rmtree(tmp_path / good.folder)
    mended = [word for word in words if word != "w_bits=9,2"]
    mended[mended.index("optim.learning_rate=1e30,0.01")] = "optim.learning_rate=0.01"
    assert command_outside(tmp_path, *mended, "w_bits=2,3").returncode == 0
    assert states(tmp_path) == ["done", "done"]


SEARCH = ["hydra/sweeper=optuna", "+sweep=optuna", "hydra.sweeper.n_jobs=2"]


@pytest.mark.slow
def test_optuna_searches_and_finds_its_trials_again(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = [*PACT[1:], *SEARCH]
    assert command_outside(tmp_path, *words, "hydra.sweeper.n_trials=2").returncode == 0
    first = jobs_in(tmp_path)
    assert [job.state for job in first] == ["done"] * 2
    # The sampler is seeded: the same command with more trials goes on where the first one ended.
    more = command_outside(tmp_path, *words, "hydra.sweeper.n_trials=3")
    assert more.returncode == 0, more.stderr
    jobs = jobs_in(tmp_path)
    assert [job.state for job in jobs] == ["skipped", "skipped", "done"]
    assert [job.overrides for job in jobs[:2]] == [job.overrides for job in first]
    results = sorted((tmp_path / "runs/sweeps").glob("*/optimization_results.yaml"))
    best = yaml.safe_load(results[-1].read_text())
    assert best["best_value"] == max(job.accuracy or 0.0 for job in jobs)


@pytest.mark.slow
@pytest.mark.skipif(
    not importlib.metadata.version("SQLAlchemy").startswith("1."),
    reason="Optuna 2's storage needs SQLAlchemy 1: install the extra `sweep`",
)
def test_optuna_keeps_its_trials_in_a_file(tmp_path: Path) -> None:
    store = ["hydra.sweeper.study_name=s", "hydra.sweeper.storage=sqlite:///study.db"]
    words = [*PACT[1:], *SEARCH, *store, "hydra.sweeper.n_trials=1", "epochs=0"]
    assert command_outside(tmp_path, *words).returncode == 0
    assert command_outside(tmp_path, *words).returncode == 0
    assert (tmp_path / "study.db").exists()


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "sweep").glob("*.yaml")))
def test_a_named_sweep_says_its_command(name: str) -> None:
    text = (CONF / "sweep" / f"{name}.yaml").read_text()
    assert f"+sweep={name}" in text and "\n# command   python -m qjax.train" in text


@pytest.mark.parametrize(
    "name, jobs, shared",
    [("bits", 36, 36), ("seeds", 5, 5), ("learning_rate", 18, 18), ("methods", 12, 3)],
)
def test_named_sweeps_are_populations(
    name: str,
    jobs: int,
    shared: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    begun: list[Job] = []
    monkeypatch.setattr("qjax.launchers.population.carry_out", lambda config, **rest: 0.5)
    monkeypatch.setattr("qjax.launchers.watch.read_jobs", lambda sweep, known: begun)
    words = [] if name == "methods" else ["+experiment=pact_w4a4"]
    assert command(monkeypatch, tmp_path, *words, f"+sweep={name}", *TINY) == 0
    text = capsys.readouterr().err
    assert f"sweep of {jobs} jobs" in text
    assert text.count(f"  {shared} jobs share one compilation") == jobs // shared
