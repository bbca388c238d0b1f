"""A job's file, and what becomes of a job that ends well, is finished already, or fails."""

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from qjax.launchers.jobs import LOG, Job, carry_out, in_words, read_jobs

CONFIG = OmegaConf.create({"seed": 0})
ACCURACY = {"float": 0.9, "simulated": 0.8, "integer": 0.7}


@pytest.fixture
def present(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a sweep whose fourth job is about to run."""
    hydra = {
        "sweep": {"dir": str(tmp_path)},
        "job": {"num": 3},
        "overrides": {"task": ["seed=0"]},
    }
    config = OmegaConf.create({"hydra": hydra})
    monkeypatch.setattr(HydraConfig.instance(), "cfg", config)
    return tmp_path


def planned(folder: Path, finished: bool, work=lambda: None) -> Any:
    """What `carry_out` asks of a `Planned`."""
    return lambda config, programs: SimpleNamespace(
        folder=folder, finished=finished, carry_out=work
    )


@pytest.fixture(autouse=True)
def record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every folder holds the record of a run that reached the integer form."""
    found = SimpleNamespace(accuracy=ACCURACY)
    monkeypatch.setattr("qjax.launchers.jobs.read", lambda folder: found)


def test_a_job_comes_back_from_its_file(tmp_path: Path) -> None:
    jobs = [
        Job(0, ("w_bits=2", "seed=1"), "done", 1.5, "runs/a", 0.5),
        Job(1, (), "failed", error="no", trace="where"),
        Job(12, ("x=[1,2]",)),
    ]
    for job in jobs:
        job.write(tmp_path)
    dataclasses.replace(jobs[2], state="skipped").write(tmp_path)
    assert read_jobs(tmp_path) == [*jobs[:2], dataclasses.replace(jobs[2], state="skipped")]
    assert read_jobs(tmp_path, known=[1, 12]) == jobs[:1]
    assert len(list(tmp_path.rglob("*"))) == 4, "no half-written file is left"


def test_a_job_is_running_and_then_done(present: Path) -> None:
    seen = []

    def work() -> None:
        seen.extend(read_jobs(present))
        sys.stdout.write("said on stdout\n")
        sys.stderr.write("said on stderr\n")

    folder = present / "run"
    assert carry_out(CONFIG, planned(folder, False, work)) == 0.7
    assert [(job.state, job.number) for job in seen] == [("running", 3)]
    (job,) = read_jobs(present)
    assert (job.state, job.overrides, job.accuracy) == ("done", ("seed=0",), 0.7)
    assert job.folder == str(folder) and job.seconds > 0
    assert (folder / LOG).read_text() == "said on stdout\nsaid on stderr\n"


def test_a_finished_job_is_skipped(present: Path) -> None:
    def work() -> None:
        raise AssertionError("it must not run again")

    assert carry_out(CONFIG, planned(present / "run", True, work)) == 0.7
    assert [job.state for job in read_jobs(present)] == ["skipped"]


def test_a_failed_job_keeps_its_error_and_returns_none(present: Path) -> None:
    def work() -> None:
        raise ValueError("bits must be 2")

    assert carry_out(CONFIG, planned(present / "run", False, work)) is None
    (job,) = read_jobs(present)
    assert (job.state, job.error) == ("failed", "ValueError: bits must be 2")
    assert job.trace is not None and "in work" in job.trace
    assert job.folder == str(present / "run")


def test_a_job_that_cannot_be_planned_fails_too(present: Path) -> None:
    def plan(config: Any, programs: Any) -> Any:
        raise ValueError("nothing fits")

    assert carry_out(CONFIG, plan) is None
    (job,) = read_jobs(present)
    assert (job.state, job.error, job.folder) == ("failed", "ValueError: nothing fits", None)


def test_of_hydras_wrapping_the_key_is_kept() -> None:
    with pytest.raises(InstantiationException) as caught:
        instantiate({"weight": {"_target_": "qjax.methods.dorefa.DoReFaWeight", "bits": 9}})
    words = in_words(caught.value)
    assert words.startswith("ValueError: DoReFaWeight.bits must be a whole number from 1 to 8")
    assert words.endswith("(full_key: weight)")
    assert in_words(KeyError("a")) == "KeyError: 'a'"
