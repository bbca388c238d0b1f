"""What a sweep says while it runs, and at its end."""

import copy
import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from qjax.launchers.jobs import JOBS, Job, read_jobs
from qjax.launchers.watch import Reporter, Watch, count_jobs, swept
from qjax.launchers.wording import report, standing
from qjax.train import CONF

SEED = ("model=a", "seed=0")


def multirun(*words: str, sweeper: str = "grid", **params: Any) -> DictConfig:
    """The configuration of a sweep, as far as it tells what is swept."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [f"hydra/sweeper={sweeper}"], return_hydra_config=True)
    OmegaConf.update(config, "hydra.overrides.task", list(words))
    OmegaConf.update(config, "hydra.sweeper.params", params, force_add=True)
    return config


def reporter(folder: Path, total: int | None = 3) -> tuple[Reporter, io.StringIO]:
    stream = io.StringIO()
    return Reporter(folder, total, {"seed": 3}, stream), stream


@pytest.mark.parametrize(
    "words, params, expected, jobs",
    [
        (["w_bits=2,3,4", "seed=0,1"], {}, {"w_bits": 3, "seed": 2}, 6),
        (["w_bits=2", "seed=range(5)"], {}, {"seed": 5}, 5),
        (["optim.boundaries=[1,2]"], {}, {}, 1),
        (["+experiment=choice(a,b)"], {"seed": "0,1,2"}, {"+experiment": 2, "seed": 3}, 6),
        (["seed=4"], {"seed": "0,1,2", "w_bits": "2,3"}, {"w_bits": 2}, 2),
    ],
)
def test_what_is_swept(words, params, expected, jobs) -> None:
    config = multirun(*words, **params)
    assert swept(config) == expected
    assert count_jobs(config) == jobs


def test_a_sweeper_that_draws_says_how_often() -> None:
    config = multirun("optim.learning_rate=interval(0.1,1)", sweeper="optuna")
    OmegaConf.update(config, "hydra.sweeper.n_trials", 7)
    assert swept(config) == {"optim.learning_rate": None}
    assert count_jobs(config) == 7


def test_lines_of_a_sweep(tmp_path: Path) -> None:
    found, stream = reporter(tmp_path)
    first, second = Job(0, SEED), Job(1, ("model=a", "seed=1"))
    first.write(tmp_path)
    second.write(tmp_path)
    found.look()
    dataclasses.replace(first, state="done", seconds=12.0, accuracy=0.931, folder="f").write(
        tmp_path
    )
    dataclasses.replace(second, state="failed", seconds=1.0, error="no").write(tmp_path)
    found.look()
    Job(2, ("model=a", "seed=2"), "skipped", accuracy=0.5, folder="g").write(tmp_path)
    found.look()
    found.look()
    begins = ["[1/3] begins   seed=0", "[2/3] begins   seed=1"]
    lines = stream.getvalue().splitlines()
    assert lines[:2] == begins
    assert lines[2].startswith(
        "[1/3] done     seed=0   93.10 %   12 s   (1 done, 1 running, 1 wait"
    )
    assert lines[3].startswith("[2/3] failed   seed=1   no   (1 done, 1 failed, 1 waiting, ETA 0 s")
    assert lines[4:] == [
        "[3/3] skipped  seed=2   50.00 %   finished before   (1 done, 1 skipped, 1 failed)"
    ]


def test_a_job_between_two_looks_is_told_whole(tmp_path: Path) -> None:
    found, stream = reporter(tmp_path, total=None)
    Job(9, ("seed=0",), "done", 3.0, accuracy=1.0).write(tmp_path)
    found.look()
    assert stream.getvalue() == (
        "[10] begins   seed=0\n[10] done     seed=0   100.00 %   3 s   (1 done)\n"
    )


def test_the_end_tells_what_failed_and_exits_with_an_error(tmp_path: Path, capsys) -> None:
    config = multirun("seed=0,1,2,3")
    OmegaConf.update(config, "hydra.sweep.dir", str(tmp_path))
    watch = Watch()
    watch.on_multirun_start(config)
    Job(0, ("seed=0",), "done", 3.0, "runs/a", 0.25).write(tmp_path)
    Job(1, ("seed=1",), "failed", 3.0, error="one\ntwo", trace="t").write(tmp_path)
    Job(2, ("seed=2",)).write(tmp_path)
    with pytest.raises(SystemExit) as stop:
        watch.on_multirun_end(config)
    assert stop.value.code == 1
    text = capsys.readouterr().err
    assert text.startswith(f"sweep of 4 jobs in {tmp_path}\n")
    assert "sweep: 1 done, 1 failed, 1 running, 1 never began" in text
    assert "  failed  seed=1\n          one\ntwo" in text
    assert "  lost    seed=2\n          its process ended before the job did" in text


def test_a_sweep_that_went_well_exits_quietly(tmp_path: Path, capsys) -> None:
    config = multirun("seed=0,1")
    OmegaConf.update(config, "hydra.sweep.dir", str(tmp_path))
    Job(0, ("seed=5",), "failed", error="of an earlier sweep").write(tmp_path)
    watch = Watch()
    watch.on_multirun_start(config)
    Job(0, ("seed=0",), "done", 3.0, "runs/a", 0.25).write(tmp_path)
    Job(1, ("seed=1",), "skipped", 0.0, "runs/b", 0.75).write(tmp_path)
    watch.on_multirun_end(config)
    text = capsys.readouterr().err
    assert "best    75.00 %   seed=1   runs/b" in text and "failed" not in text
    assert [job.error for job in read_jobs(tmp_path)] == [None, None]
    assert (tmp_path / f"{JOBS}.1" / "0000.json").exists(), "nothing is lost"


def test_the_same_error_is_told_once() -> None:
    jobs = [Job(n, (f"seed={n}",), "failed", error="no data") for n in range(3)]
    assert report(jobs, 3, ["seed"]).splitlines() == [
        "sweep: 3 failed",
        "  failed  seed=0",
        "  failed  seed=1",
        "  failed  seed=2",
        "          no data",
    ]
    assert report([], 2, []) == "sweep: no job began, 2 never began"


def test_jobs_that_took_no_time_do_not_shorten_the_rest() -> None:
    skipped = [Job(n, (), "skipped") for n in range(5)]
    refused = Job(5, (), "failed")
    assert standing([*skipped, refused], 10, 1.0) == "5 skipped, 1 failed, 4 waiting"
    worked = [*skipped, refused, Job(6, (), "done", 10.0)]
    assert standing(worked, 10, 10.0).endswith("3 waiting, ETA 30 s")


def test_other_processes_get_a_watch_that_does_not_report() -> None:
    watch = Watch()
    watch._reporter = object()  # pyright: ignore - what cannot be sent
    assert copy.copy(watch)._reporter is None
