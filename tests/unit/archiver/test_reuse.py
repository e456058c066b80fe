"""Unchanged entries are reused from the parent's manifest, in whole sections if possible.

However a tree changes from backup to backup, each manifest says what a full backup would say.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderblock.format.entries import Entry, EntryKind
from cinderblock.format.manifest import reader as manifest_reader
from cinderblock.format.manifest import writer as manifest_writer
from cinderblock.format.manifest.writer import ManifestWriter
from tests.support.mover.backups import Backups, key_ring
from tests.support.mover.volumes_in_memory import MemorySource
from tests.support.store.golden import describe_all
from tests.unit.format.test_stored_format import read_by_page

NAMES = [b"%s/%02d" % (directory, number) for directory in (b"a", b"a-b", b"a/in", b"b") for number in range(12)]
LATEST = 1000
"""Seconds of the newest timestamp; older files have settled."""


@pytest.fixture(autouse=True)
def tiny_sections() -> Iterator[None]:
    """Make sections of about six entries, each large enough to be copied."""
    with (
        patch.object(manifest_writer, "SECTION_BYTES", 1000),
        patch.object(manifest_reader, "MIN_COPIED_SECTION_BYTES", 1),
    ):
        yield


def volume_of(files: dict[bytes, int], stamp: int) -> MemorySource:
    """Return a volume in which every third file is a hard link to the previous one."""
    volume = MemorySource()
    for directory in (b"a", b"a-b", b"a/in", b"b"):
        volume.add(directory, kind=EntryKind.DIRECTORY)
    for name, version in sorted(files.items(), key=lambda item: item[0].replace(b"/", b"\0")):
        before = name[:-2] + b"%02d" % (int(name[-2:]) - 1)
        if name.endswith((b"2", b"5", b"8")) and before in files:
            volume.add(name, kind=EntryKind.HARDLINK, target=before, stamp=1 + version)
            volume.files[name].entry = Entry(name, EntryKind.HARDLINK, target=before, inode=7)
        else:
            volume.add(name, (0, b"%s %d" % (name, version) * 20), stamp=1 + version)
    volume.add(b"zz-newest", (0, b"%d" % stamp), stamp=LATEST + stamp)
    return volume


edits = st.dictionaries(st.sampled_from(NAMES), st.one_of(st.none(), st.integers(0, 9)), max_size=4)


@settings(max_examples=30)
@given(first=st.sets(st.sampled_from(NAMES)), changes=st.lists(edits, min_size=1, max_size=4), is_sealed=st.booleans())
def test_chain_of_incrementals_equals_full_backups(
    first: set[bytes], changes: list[dict[bytes, int | None]], is_sealed: bool
) -> None:
    backups, files, before = Backups(keys=key_ring() if is_sealed else None), dict.fromkeys(first, 0), None
    for number, change in enumerate([{}, *changes]):
        files = {**files, **change}
        files = {name: version for name, version in files.items() if version is not None}
        volume, backup = volume_of(files, number), f"backup-{number}"
        backups.back_up(volume, backup, before)
        backups.back_up(volume, f"full-{number}")
        assert list(map(_told, backups.open(backup).entries())) == list(
            map(_told, backups.open(f"full-{number}").entries())
        )
        assert read_by_page(backups.store, backup) == describe_all(volume)
        one, other = backups.open(backup).summary, backups.open(f"full-{number}").summary
        assert (one.entries, one.logical_bytes, one.newest_ctime_ns) == (
            other.entries,
            other.logical_bytes,
            other.newest_ctime_ns,
        )
        assert backups.verify(backup).entries == one.entries
        before = backup


def _told(entry: Entry) -> Entry:
    """Return an entry without its extents, whose places differ."""
    return entry._replace(extents=())


def test_sections_in_which_nothing_has_changed_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[bool] = []
    take_over = ManifestWriter.reuse
    monkeypatch.setattr(ManifestWriter, "reuse", lambda self, run: (copied.append(run.is_copied), take_over(self, run)))
    backups = Backups(keys=key_ring())
    files = dict.fromkeys(NAMES, 0)
    backups.back_up(volume_of(files, 0), "one")
    backups.back_up(volume_of(files | {NAMES[21]: 1}, 1), "two", "one")
    sections = len(list(backups.open("one").contents()))
    assert sections > 6
    assert sum(copied) == sections - 2, "all but the one that has changed, and the one with the newest file"
    assert read_by_page(backups.store, "two") == describe_all(volume_of(files | {NAMES[21]: 1}, 1))


def test_unchanged_large_file_of_many_parts_is_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_writer, "EXTENTS_PER_PART", 3)
    backups = Backups(keys=key_ring())

    def volume(stamp: int, other: int) -> MemorySource:
        made = MemorySource()
        made.add(b"before", (0, b"before"), stamp=1 + other)
        made.add(b"large", *((at << 16, b"%d" % at * 1000) for at in range(0, 40, 2)))
        made.add(b"later", (0, b"later"))
        made.add(b"zz-newest", (0, b"newest"), stamp=LATEST + stamp)
        return made

    backups.back_up(volume(0, 0), "one")
    for number, (backup, before) in enumerate((("two", "one"), ("three", "two"))):
        latest = volume(1 + number, number)
        backups.back_up(latest, backup, before)
        assert latest.bytes_read < 100
        assert read_by_page(backups.store, backup) == describe_all(latest)
        assert backups.open(backup).summary.logical_bytes == sum(
            len(data) for file in latest.files.values() for _, data in file.segments
        )


def test_sections_stay_as_large_as_they_are_over_many_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_writer, "SECTION_BYTES", 5000)
    backups = Backups()
    names = [b"%04d" % number for number in range(300)]
    versions = dict.fromkeys(names, 0)
    dice = random.Random(1)
    largest, before = [], None
    for generation in range(25):
        for name in dice.sample(names, 3):
            versions[name] += 1
        volume = MemorySource()
        for name, version in versions.items():
            volume.add(name, (0, b"%s %d" % (name, version)), stamp=1 + version)
        volume.add(b"zz-newest", (0, b"newest"), stamp=LATEST + generation)
        backups.back_up(volume, f"g{generation}", before)
        before = f"g{generation}"
        sizes = [content.size for content in backups.open(before).contents()]
        largest.append(max(sizes))
        assert read_by_page(backups.store, before) == describe_all(volume)
        assert len(sizes) < 30
    assert max(largest) <= 2 * largest[0]


def test_extended_attributes_count_in_the_size_of_a_merged_section(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Readers reject a section that is too large, so its size must be complete."""
    monkeypatch.setattr(manifest_reader, "MIN_COPIED_SECTION_BYTES", 1 << 30)
    backups = Backups()

    def volume(stamp: int) -> MemorySource:
        made = MemorySource()
        for number in range(100):
            file = made.add(b"%04d" % number, (0, b"%d" % number))
            file.entry = file.entry._replace(xattrs=((b"user.data", bytes(2000)),))
        made.add(b"zz-newest", (0, b"newest"), stamp=LATEST + stamp)
        return made

    backups.back_up(volume(0), "one")
    backups.back_up(volume(1), "two", "one")
    largest = max(content.size for content in backups.open("one").contents())
    assert max(content.size for content in backups.open("two").contents()) <= 2 * largest
    assert read_by_page(backups.store, "two") == describe_all(volume(1))
