"""A batch of runs: what a job file says, who takes which job, what is packed."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from experiments.batch_jobs import Job, choose, pack, read_jobs

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "experiments" / "run_batch.py")]
TINY = "data=synthetic data.height=8 data.width=8 data.channels=1 data.train_size=96 batch_size=32"


def written(folder: Path, text: str) -> Path:
    path = folder / "jobs.txt"
    path.write_text(text, encoding="utf-8")
    return path


def job(group: str, line: int, state: str = "waiting", needs_core: bool = False) -> Job:
    return Job(group, line, (), "", needs_core, state)


def test_commas_sweep_and_groups_keep_their_first_place(tmp_path: Path):
    path = written(
        tmp_path,
        "# comment\n\n"
        "b: +experiment=x w_bits=2,4 a_bits=${w_bits}  # both\n"
        "a: model.widths=[4,8] seed=0\n"
        "b: seed=7\n",
    )
    jobs = read_jobs([path], ["a:epochs=2"])
    assert [(found.group, found.line) for found in jobs] == [("b", 0), ("b", 0), ("b", 1), ("a", 2)]
    assert jobs[1].overrides == ("+experiment=x", "w_bits=4", "a_bits=${w_bits}")
    assert jobs[1].label == "+experiment=x w_bits=4"
    assert jobs[3].overrides == ("model.widths=[4,8]", "seed=0", "epochs=2")


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("+experiment=x\n", [], "line 1: must be GROUP: OVERRIDE"),
        ("a: seed=[0\n", [], "line 1"),
        ("a: seed=0\n", ["b:epochs=2"], "no group 'b'; groups are a"),
    ],
)
def test_a_faulty_line_is_named(tmp_path: Path, text: str, changes: list[str], message: str):
    with pytest.raises(ValueError, match=message):
        read_jobs([written(tmp_path, text)], changes)


def test_a_worker_stays_with_its_line_and_others_spread():
    jobs = [job("a", 0, "running"), job("a", 0), job("a", 1), job("b", 2)]
    assert choose(jobs, 0, [], False) is jobs[1]
    assert choose(jobs, None, [], False) is jobs[2]


def test_an_urgent_group_goes_before_the_workers_line():
    jobs = [job("a", 0), job("b", 1)]
    assert choose(jobs, 1, [], False) is jobs[0]


def test_the_accelerator_takes_its_groups_first_and_cores_take_them_last():
    jobs = [job("a", 0), job("b", 1)]
    assert choose(jobs, None, ["b"], True) is jobs[1]
    assert choose(jobs, None, ["b"], False) is jobs[0]
    jobs[0].state = "done"
    assert choose(jobs, None, ["b"], False) is jobs[1]


def test_what_failed_on_the_accelerator_is_left_to_a_core():
    jobs = [job("b", 1, needs_core=True)]
    assert choose(jobs, None, ["b"], True) is None
    assert choose(jobs, None, ["b"], False) is jobs[0]


def test_curves_are_left_out_where_the_archive_grows_too_large(tmp_path: Path):
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_bytes(os.urandom(4000))
    (tmp_path / "checkpoints").mkdir()
    archive = tmp_path / "out.tar.gz"
    assert pack([tmp_path], archive, 10_000)[1]
    size, whole = pack([tmp_path], archive, 2000)
    assert size == archive.stat().st_size and not whole
    with tarfile.open(archive) as found:
        assert [Path(name).name for name in found.getnames()] == ["result.json"]
    with pytest.raises(ValueError, match="use --limit"):
        pack([tmp_path], archive, 10)


@pytest.mark.slow
def test_a_batch_runs_packs_and_skips_what_is_finished(tmp_path: Path):
    path = written(
        tmp_path,
        f"good: +experiment=pact_w4a4 {TINY} model.width=4 epochs=1 seed=0,1\n"
        f"bad: +experiment=pact_w4a4 {TINY} batch_size=0\n",
    )
    words = [*COMMAND, str(path), "--workers", "1", "--out", "out.tar.gz"]
    first = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == 1 and "batch_size must be" in first.stdout, first.stderr
    with tarfile.open(tmp_path / "out.tar.gz") as archive:
        results = [name for name in archive.getnames() if name.endswith("result.json")]
        assert len(results) == 2 and not any("events" in name for name in archive.getnames())
        stored = archive.extractfile(results[0])
        assert stored is not None and json.load(stored)["epochs"] == 1
    begun = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    again = subprocess.run([*words, "--groups", "good"], cwd=tmp_path, capture_output=True)
    assert again.returncode == 0
    assert begun == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
