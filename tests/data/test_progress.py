"""Progress: lines for a log, a bar for a terminal."""

import io
import sys

import pytest

from qjax.data import progress as showing
from qjax.data.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_at_both_ends_only(capsys: pytest.CaptureFixture):
    with progress("fetching it", 4_000_000) as advance:
        for _ in range(4):
            advance(1_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "fetching it: started, 0 s",
        "fetching it: done, 4.0 MB of 4.0 MB, 0 s",
    ]


def test_a_long_transfer_shows_life(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(showing, "_SECONDS_BETWEEN_LINES", 0.0)
    with progress("a client", None) as advance:
        advance(0)
        advance(2_500_000)
    assert capsys.readouterr().err.splitlines()[1:] == [
        "a client: still going, 0 s",
        "a client: still going, 2.5 MB, 0 s",
        "a client: done, 2.5 MB, 0 s",
    ]


def test_a_failed_transfer_is_not_called_done(capsys: pytest.CaptureFixture):
    with pytest.raises(OSError), progress("fetching it", 10):
        raise OSError("cut")
    assert capsys.readouterr().err == "fetching it: started, 0 s\n"


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("fetching it", 2000) as advance:
        advance(2000)
    assert "fetching it: 100%" in terminal.getvalue()
    assert "2.00k/2.00k" in terminal.getvalue()


def test_a_terminal_sees_the_time_a_client_takes(monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("npm pack it", None) as advance:
        advance(0)
    assert "npm pack it: 00:00" in terminal.getvalue()
