"""`python -m qjax.data`."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qjax.data import __main__ as command
from qjax.data.source import Source
from tests.data.fabricate import CopyOrigin, FailingOrigin

Tiny = Callable[..., Source]


@pytest.fixture
def known(tiny: Tiny, idx_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the tiny set, with the given origins, the only one that the command knows."""

    def install(*origins: CopyOrigin | FailingOrigin):
        monkeypatch.setattr(command, "sources", lambda: {"tiny": tiny(*origins)})

    install(CopyOrigin(idx_folder))
    return install


def test_fetch_fills_the_cache_once(known, cache: Path, capsys: pytest.CaptureFixture):
    assert command.main(["fetch", "tiny"]) == 0
    line = f"tiny: verified in {cache / 'tiny'}, from the copying origin\n"
    assert capsys.readouterr().out == line
    known(FailingOrigin(OSError("must not be asked")))
    assert command.main(["fetch", "tiny"]) == 0
    assert capsys.readouterr().out == line


def test_fetch_takes_files_put_in_by_hand(known, idx_folder: Path, capsys: pytest.CaptureFixture):
    known(FailingOrigin(OSError("no connection")))
    assert command.main(["fetch", "tiny", "--root", str(idx_folder)]) == 0
    assert capsys.readouterr().out.endswith("from canonical files put in by hand\n")


def test_a_failed_fetch_is_told_without_a_traceback(known, capsys: pytest.CaptureFixture):
    known(FailingOrigin(OSError("no connection")))
    assert command.main(["fetch", "tiny"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "cannot fetch tiny. Tried:\n  the failing origin: no connection\nBy hand:" in said.err


def test_a_damaged_cache_is_told_and_left_alone(known, cache: Path, capsys: pytest.CaptureFixture):
    command.main(["fetch", "tiny"])
    path = cache / "tiny" / "test_labels.npy"
    path.write_bytes(b"damage")
    assert command.main(["fetch", "tiny"]) == 1
    assert f"cache file {path} is damaged" in capsys.readouterr().err
    assert path.read_bytes() == b"damage"


def test_an_unknown_name_lists_the_known_ones(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        command.main(["fetch", "imagenet"])
    said = capsys.readouterr().err
    assert all(name in said for name in ("imagenet", "cifar10", "fashion_mnist", "mnist"))


def test_list_shows_what_is_there(known, cache: Path, capsys: pytest.CaptureFixture):
    assert command.main(["list"]) == 0
    assert "tiny: not cached\n  licence: free\n" in capsys.readouterr().out
    command.main(["fetch", "tiny"])
    left = cache / "tiny.partial-abc"
    left.mkdir()
    (left / "half").write_bytes(b"x" * 200_000)
    capsys.readouterr()
    assert command.main(["list"]) == 0
    said = capsys.readouterr().out
    assert f"cache: {cache}\n" in said
    assert "tiny: 0.0 MB, from the copying origin\n" in said
    assert "tiny.partial-abc: 0.2 MB of a fetch under way or interrupted\n" in said


def test_the_package_imports_nothing_heavy():
    check = (
        "import sys, qjax.data.__main__ as m, qjax.data.batches; m.sources(); "
        "sys.exit(', '.join({'jax', 'hydra', 'sklearn', 'grain'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
