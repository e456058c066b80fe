"""File systems in image files, and snapshots of them that are only crash consistent.

A snapshot is a copy of the image below the mounted file system, at one instant. Nothing freezes or syncs the file
system before, as with most disk drivers. So a snapshot may hold the new timestamps of a file and its old data.

    with UnfrozenVolume.made(tmp_path, "xfs") as volume:
        (volume.live / "table").write_bytes(...)
        volume.settle()
        ...
        snapshot = volume.take_snapshot()
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.cluster.csi import instants

KINDS = ("ext4", "xfs")
"""File systems of which snapshots can be taken."""
MIB = 1 << 20
TRIALS = 20
"""Attempts of `until_seen`. On a busy machine, eight once all came too late: the kernel had written the data back."""

_FORCE = {"ext4": "-F", "xfs": "-f"}
_SNAPSHOT_OPTIONS = {"ext4": "loop", "xfs": "loop,nouuid"}
"""Without nouuid, XFS does not mount two file systems of the same UUID at once (mount(8))."""
_FLUSH_SECONDS = 6
"""The kernel's flusher wakes up every 5 s (sysctl vm.dirty_writeback_centisecs)."""


class NeverSeenError(AssertionError):
    """No trial reached the state to test, so the test proves nothing."""


class UnfrozenVolume:
    """A mounted file system whose storage can be copied while programs write to it.

    Attributes:
        kind: one of KINDS.
        live: where the file system is mounted.
    """

    def __init__(self, directory: Path, kind: str) -> None:
        self.kind = kind
        self.live = directory / "live"
        self._image = directory / "disk.img"
        self._snapshot = directory / "snapshot"
        self._copy = directory / "snapshot.img"

    @classmethod
    @contextmanager
    def made(cls, directory: Path, kind: str, mib: int = 400) -> Iterator[UnfrozenVolume]:
        """Make the file system of ``mib`` MiB below ``directory``, mount it, and unmount it at the end. This needs
        root.

        mkfs.xfs refuses less than 300 MiB.
        """
        volume = cls(directory, kind)
        volume.live.mkdir(parents=True)
        volume._snapshot.mkdir()
        with volume._image.open("xb") as file:
            file.truncate(mib * MIB)
        _run(f"mkfs.{kind}", "-q", _FORCE[kind], volume._image)
        with ExitStack() as left:
            left.callback(volume._image.unlink)
            _run("mount", "-o", "loop", volume._image, volume.live)
            # A test that fails may still hold files of a mount. The loop device then goes with the last of them.
            left.callback(_run, "umount", "--lazy", volume.live)
            left.callback(volume._drop, "--lazy")
            yield volume

    def settle(self) -> None:
        """Write all data to the image, and wait for one run of the flusher.

        Later writes reach the image up to 30 s later, unless a program calls fsync (sysctl vm.dirty_expire_centisecs).
        """
        self.sync()
        time.sleep(_FLUSH_SECONDS)

    def sync(self) -> None:
        """Write all data to the image, like syncfs(2)."""
        _run("sync", "-f", self.live)

    def take_snapshot(self, *, read_only: bool = False) -> Path:
        """Take a snapshot, mount it in place of the previous one, and return its mount point.

        The mount replays the journal of the copy, as after a crash.
        """
        self.drop()
        instants.copy(str(self._image), str(self._copy))
        options = _SNAPSHOT_OPTIONS[self.kind] + (",ro" if read_only else "")
        _run("mount", "-o", options, self._copy, self._snapshot)
        return self._snapshot

    def drop(self) -> None:
        """Unmount and remove the snapshot, if there is one. Raises CalledProcessError if it is in use."""
        self._drop()

    def _drop(self, *options: str) -> None:
        if os.path.ismount(self._snapshot):
            _run("umount", *options, self._snapshot)
        self._copy.unlink(missing_ok=True)


class Facts(NamedTuple):
    """A file of a tree: the properties that a backup compares, and the content."""

    size: int
    mtime: int
    ctime: int
    inode: int
    digest: bytes

    @property
    def timestamps(self) -> tuple[int, ...]:
        """Return everything except the content."""
        return self[:-1]


def facts(tree: Path) -> dict[str, Facts]:
    """Return the facts of all regular files of a tree by their paths in it."""
    found = {}
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            digest = hashlib.sha256(path.read_bytes()).digest()
            timestamps = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            found[str(path.relative_to(tree))] = Facts(*timestamps, digest)
    return found


def hidden_changes(before: Mapping[str, Facts], after: Mapping[str, Facts]) -> list[str]:
    """Return the files whose content differs although size, mtime, ctime and inode number are the same."""
    both = before.keys() & after.keys()
    return sorted(
        path
        for path in both
        if before[path].timestamps == after[path].timestamps and before[path].digest != after[path].digest
    )


def why_not(kind: str) -> str | None:
    """Return why this machine cannot make such a file system; None if it can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    return None if shutil.which(f"mkfs.{kind}") else f"mkfs.{kind} is not installed"


def until_seen(trial: Callable[[], bool]) -> None:
    """Repeat a trial until it reports that it reached the state to test.

    Raises NeverSeenError after TRIALS trials: a test that never reached the state proves nothing.
    """
    if not any(trial() for _ in range(TRIALS)):
        raise NeverSeenError(f"in {TRIALS} trials, the first snapshot always held the data: this shows nothing")


def _run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True)
