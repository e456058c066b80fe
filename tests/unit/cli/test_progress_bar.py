"""Progress has the form that its reader needs."""

from __future__ import annotations

import io
import json
import sys

import pytest
from typing_extensions import override

from cinderblock.api.quantity import format_size
from cinderblock.cli.output import format_duration
from cinderblock.cli.progress_bar import ProgressBar, progress_for
from cinderblock.repository.progress import Progress

MIB = 1 << 20


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    @override
    def isatty(self) -> bool:
        return True


def test_terminal_gets_a_bar_that_is_redrawn_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress_for("backup", as_json=False) as progress:
        progress(Progress(50 * MIB, 200 * MIB, 10 * MIB))
    drawn = screen.getvalue()
    assert "backup [######..................] 25.0% of 200 MiB, 10.0 MiB moved" in drawn
    assert drawn.endswith(" \r")
    assert "\n" not in drawn


def test_programs_get_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_for("backup", as_json=True) as progress:
        progress(Progress(1, 2, 3))
    line = json.loads(capsys.readouterr().err.splitlines()[0])
    assert (line["bytesDone"], line["bytesTotal"], line["bytesStored"]) == (1, 2, 3)


def test_json_lines_omit_an_unknown_total(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_for("backup", as_json=True, bounded=False) as progress:
        progress(Progress(1, 2, 3))
    assert json.loads(capsys.readouterr().err) == {"bytesDone": 1, "bytesStored": 3, "bytesPerSecond": 0}


def test_other_streams_get_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_for("backup", as_json=False) as progress:
        progress(Progress(1, 2, 3))
    assert capsys.readouterr() == ("", "")


def test_bar_is_redrawn_at_a_limited_rate() -> None:
    screen, times = io.StringIO(), iter([0.0, 1.0, 1.1, 1.15, 1.3])
    bar = ProgressBar(screen, "verify", clock=lambda: next(times))
    for done in range(1, 5):
        bar(Progress(done * MIB, 4 * MIB, 0))
    assert [line[:6] for line in screen.getvalue().split("\r")[1:]] == ["verify", "verify"]


def test_bar_shows_speed_and_remaining_time() -> None:
    screen, times = io.StringIO(), iter([0.0, 10.0])
    ProgressBar(screen, "restore", clock=lambda: next(times))(Progress(100 * MIB, 400 * MIB, 7 * MIB))
    assert "10.0 MiB/s, 0:00:30 left" in screen.getvalue()


def test_bar_omits_the_percentage_of_an_unknown_total() -> None:
    screen, times = io.StringIO(), iter([0.0, 10.0])
    ProgressBar(screen, "backup", bounded=False, clock=lambda: next(times))(Progress(100 * MIB, 400 * MIB, 7 * MIB))
    assert screen.getvalue() == "\rbackup 100 MiB, 7.00 MiB moved, 10.0 MiB/s"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1536, "1.50 KiB"),
        (20 << 20, "20.0 MiB"),
        (999 << 30, "999 GiB"),
    ],
)
def test_sizes_have_three_digits(count: int, text: str) -> None:
    assert format_size(count) == text


def test_durations_have_hours() -> None:
    assert format_duration(3723.9) == "1:02:03"
