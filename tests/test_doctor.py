"""The doctor, run in this process, and what it does on a sick platform."""

from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax import doctor
from qjax.core.selfcheck import Check, checks

FAST = {"int8 dense", "int8 dense, one row", "int8 conv, 16 channels", "int8 conv, 8 groups"}


def test_report_on_this_platform(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main() == 0
    printed = capsys.readouterr().out
    for words in ("jaxlib", "x64         off", "XLA_FLAGS", "cpu,", "everything qjax relies on"):
        assert words in printed
    lines = {line[:44].strip(): line[44:].strip() for line in printed.splitlines()}
    for check in checks():
        assert lines[check.name].startswith("ok" if not check.avoided else ("ok", "FAILS", "WRONG"))
    assert all("s8 library" in lines[name] for name in FAST)
    assert "elementwise" in lines["int8 conv, depthwise"]
    assert "s32 loop" in lines["int8 conv as XLA has it"]


def test_wrong_results_are_counted_and_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = np.arange(6, dtype=np.int8)
    wrong = Check("wraps", lambda x: x * 50, (codes,), codes.astype(np.int64) * 50)
    known = Check("known", lambda x: x + 1, (codes,), codes, avoided="another form")
    right = Check("right", lambda x: x + 1, (codes,), codes + 1)
    monkeypatch.setattr(doctor, "checks", lambda: iter([wrong, known, right]))
    assert doctor.main() == 1
    printed = capsys.readouterr().out
    assert "3 of 6 differ, first -106 for 150" in printed
    assert "6 of 6 differ, first 1 for 0  (avoided: another form)" in printed
    assert "1 of 3 checks are wrong on this platform: wraps" in printed


def test_avoided_patterns_alone_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.arange(6, dtype=np.int8)
    known = Check("known", lambda x: x + 1, (codes,), codes, avoided="another form")
    monkeypatch.setattr(doctor, "checks", lambda: iter([known]))
    assert doctor.main() == 0


def test_a_program_that_does_not_compile_fails_the_check() -> None:
    def run(x: jax.Array) -> jax.Array:
        raise jax.errors.JaxRuntimeError("INTERNAL: no kernel\nsecond line")

    codes = np.arange(3, dtype=np.int8)
    outcome = doctor.examine(Check("broken", run, (codes,), codes))
    assert (outcome.verdict, outcome.detail) == ("FAILS", "INTERNAL: no kernel")
    assert outcome.counts


def test_not_a_number_is_wrong() -> None:
    ones = np.ones(3, np.float32)
    outcome = doctor.examine(Check("nan", jnp.log, (-ones,), ones, tolerance=1.0))
    assert outcome.verdict == "WRONG"


@pytest.mark.parametrize(
    ("installed", "reason"), [("0.10.2", "wrong results"), ("0.11.0", "crashes or hangs")]
)
def test_known_bad_releases_are_refused_with_the_remedy(
    installed: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: installed)
    with pytest.raises(RuntimeError, match=f"jaxlib {installed} .*{reason}.*pip install"):
        doctor.check_versions()
    assert doctor.main() == 2
    assert capsys.readouterr().out.startswith("refused: jaxlib")


def test_a_missing_jaxlib_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(RuntimeError, match="jaxlib is not installed: pip install"):
        doctor.check_versions()


def test_the_installed_release_is_accepted() -> None:
    doctor.check_versions()
