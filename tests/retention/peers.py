"""Thirty days of Cinderblock, restic and kopia on one image, with the sizes of chunks and packs that they have."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from typing_extensions import override

from cinderblock.api.mover import VolumeMode
from cinderblock.store.memory import MemoryStore
from tests.bench import peers
from tests.bench.image import change_image, make_image
from tests.bench.running import Processors, Usage
from tests.bench.server import BenchServer, serving
from tests.support.mover.backups import PREFIX, VOLUME, Backups, key_ring
from tests.support.mover.expiry import expire

SIZE: Final = 1 << 30
"""Bytes of the image, of which a third are holes."""
DAYS: Final = 30
KEPT: Final = 7
CHANGED: Final = 0.01
_EVERYTHING_ELSE: Final = ("hourly", "daily", "weekly", "monthly", "annual")


class _Restic(peers.Restic):
    """restic, which removes what it does not keep after each backup."""

    def forget(self) -> None:
        """Keep the newest snapshots."""
        self._run("forget", "--keep-last", str(KEPT), "--prune")

    @override
    def _run(self, *arguments: str) -> Usage:
        return _run([*self._program, *arguments], self._environment)


class _Kopia(peers.Kopia):
    """kopia, which removes what it does not keep after each backup."""

    def forget(self) -> None:
        """Keep the newest snapshots. Without ``--safety none``, kopia keeps what it does not need for a day."""
        others = [word for period in _EVERYTHING_ELSE for word in (f"--keep-{period}", "0")]
        self._run("policy", "set", "--global", "--keep-latest", str(KEPT), *others)
        self._run("snapshot", "expire", "--all", "--delete")
        self._run("maintenance", "run", "--full", "--safety", "none")

    @override
    def _run(self, *arguments: str) -> Usage:
        return _run([self._program, *arguments], self._environment)


def compare() -> int:
    """Print a row for each program. Returns the exit code."""
    peers.provide([peers.RESTIC, peers.KOPIA])
    print(f"| program | stored for each byte of data, day {DAYS} | most after day {KEPT} |")
    print("|---|---|---|", flush=True)
    processors = Processors.divide(2, 0)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch, serving(scratch, processors) as server:
        data = _measure_own(scratch)
        _measure(_Restic(server, "restic", scratch, processors), server, scratch, data)
        _measure(_Kopia(server, "kopia", scratch, processors), server, scratch, data)
    return 0


def _measure_own(scratch: str) -> int:
    """Measure Cinderblock, and return the bytes of data in the image."""
    backups, sizes = Backups(MemoryStore(), key_ring()), list[int]()

    def back_up(image: str, day: int) -> None:
        parent = f"day-{day - 1}" if day else None
        sizes.append(backups.back_up(Path(image), f"day-{day}", parent, VolumeMode.BLOCK).logical_bytes)
        if day >= KEPT:
            expire(backups.store, PREFIX, VOLUME, [f"day-{day - KEPT}"], backups.keys)

    stored = _live_through(scratch, back_up, lambda: sum(info.size for info in backups.store.list("")))
    _show("cinderblock", stored, sizes[-1])
    return sizes[-1]


def _measure(program: _Restic | _Kopia, server: BenchServer, scratch: str, data: int) -> None:
    def back_up(image: str, day: int) -> None:
        program.backup(image, first=not day)
        program.forget()

    _show(program.name, _live_through(scratch, back_up, lambda: server.stored(program.container)), data)


def _live_through(scratch: str, back_up: Callable[[str, int], None], stored: Callable[[], int]) -> list[int]:
    """Back up the image on each day, and return the stored bytes after each."""
    image = os.path.join(scratch, "image")
    make_image(image, SIZE, seed=1)
    found = []
    for day in range(DAYS):
        if day:
            change_image(image, CHANGED, seed=day)
        back_up(image, day)
        found.append(stored())
    os.unlink(image)
    return found


def _show(name: str, stored: Sequence[int], data: int) -> None:
    print(f"| {name} | {stored[-1] / data:.2f} | {max(stored[KEPT:]) / data:.2f} |", flush=True)


def _run(command: Sequence[str], environment: dict[str, str]) -> Usage:
    """Run a program. Raises CalledProcessError if it fails."""
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    return Usage(0, 0, 0, 0, done.stdout)
