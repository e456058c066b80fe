"""Volumes that change while they are read. A torn file never passes as sound."""

from __future__ import annotations

from pathlib import Path

import pytest

from cinderblock.errors import SourceChanging
from cinderblock.format.entries import EntryKind
from tests.support.mover.backups import Backups
from tests.support.mover.volumes_in_memory import MemorySource

MIB = 1 << 20


@pytest.fixture
def volume() -> MemorySource:
    """Return a volume with a small and a large file."""
    source = MemorySource()
    source.add(b"large", (0, b"l" * (2 * MIB + 5)))
    source.add(b"small", (0, b"small"))
    return source


def restore(backups: Backups, target: Path) -> dict[bytes, bytes]:
    target.mkdir()
    backups.restore("one", target)
    return {path.name.encode(): path.read_bytes() for path in target.iterdir()}


@pytest.mark.parametrize("path", [b"small", b"large"])
def test_file_that_changes_while_read_is_reread_and_reported(volume: MemorySource, path: bytes, tmp_path: Path) -> None:
    volume.files[path].unstable = 1
    backups = Backups()
    report = backups.back_up(volume, "one")
    assert report.warnings == ["1 files changed while they were read, and were read again"]
    assert volume.files[path].opened == 2
    assert restore(backups, tmp_path / "target")[path] == volume.files[path].segments[0][1]
    assert volume.open_files == 0


@pytest.mark.parametrize("path", [b"small", b"large"])
def test_file_that_never_settles_is_a_transient_failure(volume: MemorySource, path: bytes) -> None:
    volume.files[path].unstable = 1000
    backups = Backups()
    with pytest.raises(SourceChanging, match=path.decode()) as caught:
        backups.back_up(volume, "one")
    assert not caught.value.permanent
    assert volume.open_files == 0
    assert list(backups.store.list("some/where/backups/")) == []


def test_small_file_with_unsettled_timestamps_is_read_twice(volume: MemorySource, tmp_path: Path) -> None:
    volume.files[b"small"].is_settled = False
    backups = Backups()
    assert backups.back_up(volume, "one").warnings == []
    assert volume.bytes_read == 2 * len(b"small") + volume.files[b"large"].entry.size
    assert restore(backups, tmp_path / "target")[b"small"] == b"small"


def test_small_file_that_reads_differently_twice_is_not_accepted(volume: MemorySource) -> None:
    file, reads = volume.files[b"small"], iter(range(100))
    file.is_settled = False
    file.entry = file.entry._replace(size=8)
    file.on_read = lambda: setattr(file, "segments", [(0, b"%08d" % next(reads))])
    with pytest.raises(SourceChanging, match="small"):
        Backups().back_up(volume, "one")
    assert volume.open_files == 0


def test_large_file_with_unsettled_timestamps_is_a_transient_failure(volume: MemorySource) -> None:
    volume.files[b"large"].is_settled = False
    with pytest.raises(SourceChanging, match="large"):
        Backups().back_up(volume, "one")
    assert volume.open_files == 0


@pytest.mark.parametrize("path", [b"small", b"large"])
def test_vanished_file_is_left_out_and_reported(volume: MemorySource, path: bytes, tmp_path: Path) -> None:
    volume.files[path].on_open = lambda _: volume.files.pop(path)
    backups = Backups()
    report = backups.back_up(volume, "one")
    assert report.warnings == ["1 files vanished before they could be read, and were left out"]
    assert restore(backups, tmp_path / "target").keys() == {b"small", b"large"} - {path}


@pytest.mark.parametrize("path", [b"small", b"large"])
def test_file_that_vanishes_while_read_is_left_out_and_reported(
    volume: MemorySource, path: bytes, tmp_path: Path
) -> None:
    volume.files[path].unstable = 1
    volume.files[path].on_open = lambda openings: volume.files.pop(path) if openings else None
    backups = Backups()
    report = backups.back_up(volume, "one")
    assert report.warnings == ["1 files vanished before they could be read, and were left out"]
    assert restore(backups, tmp_path / "target").keys() == {b"small", b"large"} - {path}
    assert volume.open_files == 0


def test_hard_link_to_a_vanished_file_fails_the_backup(volume: MemorySource) -> None:
    volume.add(b"z-link", kind=EntryKind.HARDLINK, target=b"small")
    volume.files[b"small"].on_open = lambda _: volume.files.pop(b"small")
    with pytest.raises(SourceChanging, match="small"):
        Backups().back_up(volume, "one")


@pytest.mark.parametrize("path", [b"small", b"large"])
def test_file_that_becomes_shorter_while_it_is_read_is_read_again(
    volume: MemorySource, path: bytes, tmp_path: Path
) -> None:
    file = volume.files[path]
    file.becomes_shorter = True
    backups = Backups()
    backups.back_up(volume, "one")
    assert file.opened == 2
    assert restore(backups, tmp_path / "target")[path] == file.segments[0][1]
    assert len(file.segments[0][1]) == file.entry.size > 0


def test_small_file_that_grew_is_stored_with_its_new_size(volume: MemorySource, tmp_path: Path) -> None:
    grown = b"g" * (MIB - 10)
    volume.files[b"small"].on_open = lambda _: volume.add(b"small", (0, grown))
    volume.add(b"another", (0, b"a" * 1000))
    volume.add(b"more", (0, b"m" * 1000))
    backups = Backups()
    backups.back_up(volume, "one")
    content = restore(backups, tmp_path / "target")
    assert content[b"small"] == grown
    assert content[b"another"] == b"a" * 1000


def test_small_file_that_grew_beyond_a_chunk_may_be_tried_again(volume: MemorySource) -> None:
    volume.files[b"small"].on_open = lambda _: volume.add(b"small", (0, b"g" * (MIB + 1)))
    with pytest.raises(SourceChanging, match="grows"):
        Backups().back_up(volume, "one")
    assert volume.open_files == 0
