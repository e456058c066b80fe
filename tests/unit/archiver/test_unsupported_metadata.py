"""A backup reports metadata that it leaves out or cannot see, with counts if possible."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from cinderblock.api.losses import Loss
from cinderblock.api.mover import MoverReport
from cinderblock.volume.capabilities import Capability
from tests.support.mover.backups import Backups
from tests.support.mover.unprivileged import run_with_capabilities

BASELINE = (Capability.CHOWN, Capability.DAC_OVERRIDE, Capability.FOWNER, Capability.MKNOD)
UNSEEN = Loss(what="trusted.* attributes")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    (path / "inner").mkdir(parents=True)
    return path


def back_up(source: Path, capabilities: tuple[Capability, ...] = BASELINE) -> MoverReport:
    return run_with_capabilities(lambda: Backups().back_up(source, "full"), capabilities)


def test_attributes_that_the_mover_cannot_see_are_an_uncounted_loss(source: Path) -> None:
    report = back_up(source)
    assert report.losses == [UNSEEN]
    assert report.warnings == []


def test_process_that_sees_all_has_lost_nothing(source: Path) -> None:
    assert back_up(source, tuple(Capability)).losses == []


def test_sockets_are_counted_and_named(source: Path) -> None:
    listening = [socket.socket(socket.AF_UNIX) for _ in range(4)]
    for number, one in enumerate(listening):
        one.bind(str(source / "inner" / f"socket{number}"))
        one.close()
    report = back_up(source)
    named = [f"inner/socket{number}" for number in range(3)]
    assert report.losses == [Loss(what="sockets left out", objects=4, examples=named), UNSEEN]
    assert report.warnings == ["sockets left out: 4"]


@pytest.mark.parametrize("are_links", [False, True], ids=["devices", "links to one"])
def test_upper_directory_of_an_overlay_is_warned_of(source: Path, are_links: bool) -> None:
    """Newer kernels make all whiteouts hard links to one inode (overlayfs)."""
    os.mknod(source / "inner" / "gone0", stat.S_IFCHR, os.makedev(0, 0))
    for name in ("gone1", "gone2", "gone3"):
        if are_links:
            os.link(source / "inner" / "gone0", source / "inner" / name)
        else:
            os.mknod(source / "inner" / name, stat.S_IFCHR, os.makedev(0, 0))
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    report = back_up(source)
    assert report.losses == [UNSEEN]
    overlay, meaning = report.warnings[0].split("; ")
    assert (len(report.warnings), overlay) == (1, "4 whiteouts: this is the upper directory of an overlay")
    assert meaning == (
        "its trusted.overlay.* attributes are not in the backup, so hidden names may reappear after a restore "
        "(inner/gone0, inner/gone1, inner/gone2)"
    )
    assert back_up(source, tuple(Capability)).warnings == []
