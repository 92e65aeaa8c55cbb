"""Loading is a bar on a terminal and a handful of lines in a log."""

import io
import logging

import pytest

from worker.loading import LoadingReport

pytestmark = pytest.mark.unit


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_loading_in_a_log_is_at_most_ten_lines_that_rise(caplog: pytest.LogCaptureFixture) -> None:
    report = LoadingReport(io.StringIO(), pause_s=0.0)
    with caplog.at_level(logging.INFO):
        for n in range(1001):
            report.tell(n / 1000, "model-00001-of-00004.safetensors")
    assert [record.getMessage().split("%")[0] for record in caplog.records] == [
        f"engine loads: {10 * n:3d} " for n in range(1, 11)
    ]


def test_loading_of_a_small_checkpoint_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    report = LoadingReport(io.StringIO(), pause_s=60.0)
    with caplog.at_level(logging.INFO):
        for n in range(101):
            report.tell(n / 100, "model.safetensors")
    assert not caplog.records


def test_loading_on_a_terminal_is_one_line_with_a_bar() -> None:
    terminal = _Terminal()
    report = LoadingReport(terminal)
    for n in range(5):
        report.tell(n / 4, "weights")
    frames = terminal.getvalue().split("\r\x1b[K")
    assert [frame.count("█") for frame in frames[1:]] == [0, 8, 15, 22, 30]
    assert terminal.getvalue().count("\n") == 1 and frames[-1].endswith("100 % weights\n")
