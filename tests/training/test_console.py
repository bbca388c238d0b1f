"""Progress: a bar on a terminal, plain lines elsewhere."""

import contextlib
import io
import os
import pty
import termios

import jax.numpy as jnp
import pytest

from qjax.training.console import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that a test moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def train(stream, quiet=False, name="", seconds=(10.0, 4.0, 4.0)):
    """Three epochs of two steps, of the given durations."""
    clock = Clock()
    with Progress(3, 2, name=name, stream=stream, quiet=quiet, clock=clock) as progress:
        for number, length in enumerate(seconds, start=1):
            for _ in range(2):
                clock.now += length / 2
                progress.step(loss=jnp.float32(0.5), accuracy=0.75)
            progress.epoch(number, loss=1 / number, train_accuracy=0.971, test_accuracy=0.965)
    return stream.getvalue()


def test_plain_lines_without_a_terminal():
    assert train(io.StringIO()).splitlines() == [
        "epoch 1/3  loss 1.000  train 97.1 %  test 96.5 %  10.0 s  ETA 20 s",
        "epoch 2/3  loss 0.500  train 97.1 %  test 96.5 %  4.0 s  ETA 4 s",
        "epoch 3/3  loss 0.333  train 97.1 %  test 96.5 %  4.0 s",
    ]


def test_phase_name_comes_first_and_missing_accuracies_are_left_out():
    stream = io.StringIO()
    progress = Progress(1, 2, name="float", stream=stream, clock=Clock())
    progress.epoch(1, loss=float("nan"))
    assert stream.getvalue() == "float  epoch 1/1  loss nan  0.0 s\n"


def test_terminal_shows_a_bar_with_figures_and_keeps_the_lines():
    shown = train(Terminal(), name="quantized")
    assert "quantized  epoch 1/3   0%|" in shown
    assert "loss 0.500  train 75.0 %" in shown
    assert "/6 [" in shown
    lines = [line.rstrip() for line in shown.replace("\r", "\n").splitlines()]
    assert "quantized  epoch 2/3  loss 0.500  train 97.1 %  test 96.5 %  4.0 s  ETA 4 s" in lines
    assert shown.endswith("\r")  # the bar is wiped at the end


def everything(terminal: int) -> str:
    """What was written to a terminal that is closed at its other end; one read may give a part."""
    parts = []
    with contextlib.suppress(OSError):  # how Linux says that there is no more
        while part := os.read(terminal, 4096):
            parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode()


@pytest.mark.parametrize("size", [(0, 0), (30, 110)])
def test_bar_shows_on_a_real_terminal_even_without_a_size(size):
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, size)
    with os.fdopen(slave, "w") as stream, Progress(2, 2, stream=stream) as progress:
        progress.step(0.25)
        progress.epoch(1, loss=0.25)
    shown = everything(master)
    assert "epoch 1/2   0%|" in shown
    assert "epoch 1/2  loss 0.250" in shown


def test_losses_are_read_a_few_times_a_second_at_most():
    class Loss:
        reads = 0

        def __float__(self):
            Loss.reads += 1
            return 0.0

    clock = Clock()
    with Progress(1, 100, stream=Terminal(), clock=clock) as progress:
        for _ in range(100):
            clock.now += 0.01
            progress.step(Loss())
    assert 4 <= Loss.reads <= 6
    with Progress(1, 100, stream=io.StringIO(), clock=clock) as progress:
        progress.step(Loss())
    assert Loss.reads <= 6


def test_resumed_run_starts_where_it_was():
    terminal = Terminal()
    with Progress(3, 2, start_epoch=2, stream=terminal, clock=Clock()):
        pass
    assert "epoch 3/3  67%" in terminal.getvalue()
    assert "4/6 [" in terminal.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_quiet_writes_nothing(stream):
    assert train(stream, quiet=True) == ""


def test_messages_go_above_the_bar_or_are_plain_lines():
    plain, terminal = io.StringIO(), Terminal()
    for stream in (plain, terminal):
        with Progress(1, 1, stream=stream, clock=Clock()) as progress:
            progress.message("checkpoint saved")
    assert plain.getvalue() == "checkpoint saved\n"
    assert "\rcheckpoint saved\n" in terminal.getvalue()


def test_default_stream_is_standard_error(capsys):
    Progress(1, 1, clock=Clock()).epoch(1, loss=1.0)
    assert capsys.readouterr() == ("", "epoch 1/1  loss 1.000  0.0 s\n")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (40.4, "40 s"),
        (59.7, "1 min 00 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (100_000, "27 h 47 min"),
    ],
)
def test_durations(seconds, expected):
    assert duration(seconds) == expected
