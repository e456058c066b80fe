"""The numbers that real backups of a tree record raise the alarms that the rules promise."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from cinderblock.api.quantity import MIB
from cinderblock.lifecycle.alarms import rules
from cinderblock.lifecycle.alarms.rules import ComparedBackup, alarms_of
from cinderblock.lifecycle.alarms.stats import BackupStats, History
from cinderblock.reasons import Reason
from tests.support.mover.backups import NOON, Backups, key_ring
from tests.support.mover.volumes_in_memory import MemorySource

FILES = 120
EARLIER = 7
WORDS = [f"word{number}" for number in range(2000)]
FILE_BYTES = 32 << 10


class Volume:
    """A tree of texts with sealed backups, each but the first of which is incremental."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, int]] = {}
        self.rng = random.Random(1)
        self.backups = Backups(keys=key_ring())
        self.stats: list[BackupStats] = []
        for number in range(FILES):
            self.write(number, self.text())

    def write(self, number: int, content: bytes) -> None:
        """Write a file, whose timestamps show that."""
        self.files[f"file-{number:03}"] = content, len(self.stats) + 1

    def source(self) -> MemorySource:
        """Return the tree as a backup reads it."""
        source = MemorySource()
        for name, (content, stamp) in self.files.items():
            source.add(name.encode(), (0, content), stamp=stamp)
        return source

    def text(self) -> bytes:
        return " ".join(self.rng.choices(WORDS, k=FILE_BYTES // 7)).encode()[:FILE_BYTES]

    def back_up(self) -> list[Reason]:
        """Make a backup, and return its alarms."""
        number, earlier = len(self.stats), tuple(self.stats)
        self.backups.back_up(self.source(), f"backup-{number}", f"backup-{number - 1}" if number else None)
        summary = self.backups.open(f"backup-{number}").summary
        found = BackupStats(
            data_time=NOON + timedelta(days=number),
            is_full=number == 0,
            logical_bytes=summary.logical_bytes,
            transferred_bytes=summary.transferred_bytes,
            pack_bytes=summary.stored_bytes - summary.manifest_bytes,
            entries=summary.entries,
        )
        self.stats.append(found)
        history = History(earlier, earlier[0] if earlier else None)
        return [alarm.reason for alarm in alarms_of(ComparedBackup(found, history))]


@pytest.fixture
def volume(monkeypatch: pytest.MonkeyPatch) -> Volume:
    """Return a small volume with usual backups, for which the least numbers of the rules are lower."""
    monkeypatch.setattr(rules, "MIN_INCOMPRESSIBLE_BYTES", MIB)
    monkeypatch.setattr(rules, "MIN_REPLACED_BYTES", MIB)
    volume = Volume()
    for number in range(EARLIER):
        volume.write(number, volume.text())
        assert volume.back_up() == []
    return volume


def test_half_of_a_tree_encrypted_in_place_is_found(volume: Volume) -> None:
    for number in range(0, FILES, 2):
        volume.write(number, volume.rng.randbytes(FILE_BYTES))
    assert volume.back_up() == [Reason.INCOMPRESSIBLE, Reason.MANY_CHANGES]


def test_deleted_and_truncated_files_are_found(volume: Volume) -> None:
    for number in range(FILES - 40):
        del volume.files[f"file-{number:03}"]
    assert volume.back_up() == [Reason.SHRUNK, Reason.FEWER_ENTRIES]
    for number in range(FILES - 40, FILES):
        volume.write(number, b"")
    assert volume.back_up() == [Reason.EMPTY]


def test_renamed_and_rewritten_files_raise_no_alarm(volume: Volume) -> None:
    volume.files = {f"renamed-{name}": found for name, found in volume.files.items()}
    assert volume.back_up() == []
    for number in range(FILES):
        volume.write(number, volume.text())
    assert volume.back_up() == []
