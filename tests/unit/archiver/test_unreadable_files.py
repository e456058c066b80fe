"""With unreadable Skip, unreadable files are left out, reported, and read again by the next backup."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cinderblock.api.file_policies import Unreadable
from cinderblock.api.mover import MoverReport, VolumeMode
from cinderblock.errors import SourceError
from cinderblock.format.entries import EntryKind
from cinderblock.volume.errors import object_error
from cinderblock.volume.tree import reader as tree_reader
from cinderblock.volume.tree import walk
from cinderblock.volume.tree.walk import TreeWalk
from tests.support.mover.backups import Backups, key_ring
from tests.support.mover.damaged import READABLE, UNREADABLE, damaged_volume
from tests.support.mover.unprivileged import NOBODY, Call, run_as_user, run_with_answers
from tests.support.mover.volumes_in_memory import FileInMemory, MemorySource

MIB = 1 << 20
SKIP = Unreadable.SKIP
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def backups() -> Backups:
    return Backups(keys=key_ring())


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[Path]:
    with damaged_volume(tmp_path) as mounted:
        yield mounted


def paths(backups: Backups, backup: str) -> list[str]:
    return list(dict.fromkeys(entry.path.decode() for entry in backups.open(backup).entries()))


def missing(report: MoverReport) -> tuple[int, list[str]]:
    return report.unreadable_files, sorted(report.unreadable_examples)


def unreadable(path: bytes, code: int = errno.EIO) -> SourceError:
    return object_error(OSError(code, os.strerror(code)), "read", path)


def breaks(file: FileInMemory, code: int = errno.EIO) -> None:
    """Make reads of a file fail."""

    def fail() -> None:
        raise unreadable(file.entry.path, code)

    file.on_read = fail


# A real volume with blocks that answer EIO


@needs_root
def test_everything_that_answers_eio_is_left_out_and_named(damaged: Path, backups: Backups, tmp_path: Path) -> None:
    report = backups.back_up(damaged, "full", unreadable=SKIP)
    assert report.unreadable_files == len(UNREADABLE)
    assert set(report.unreadable_examples) < set(UNREADABLE)
    assert len(report.unreadable_examples) == 5
    assert paths(backups, "full") == READABLE
    summary = backups.open("full").summary
    assert (summary.unreadable_files, list(summary.unreadable_examples)) == missing_as_told(report)
    target = tmp_path / "target"
    target.mkdir()
    outcome = backups.restore("full", target)
    assert (target / "inner" / "fine").read_bytes() == b"can be read too"
    assert outcome.warnings[0].startswith("the backup lacks 6 files that could not be read when it was made (")


def missing_as_told(report: MoverReport) -> tuple[int, list[str]]:
    return report.unreadable_files, report.unreadable_examples


@needs_root
def test_incremental_whose_walk_is_another_process_leaves_out_the_same(
    damaged: Path, backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_reader, "is_worthwhile", lambda: True)
    full = backups.back_up(damaged, "full", unreadable=SKIP)
    again = backups.back_up(damaged, "again", "full", unreadable=SKIP)
    assert again.unreadable_files == full.unreadable_files
    assert paths(backups, "again") == READABLE


@needs_root
def test_backup_fails_by_default_and_says_how_to_continue(damaged: Path, backups: Backups) -> None:
    with pytest.raises(SourceError, match=r"I/O error.*--skip-unreadable.*EIO: cannot"):
        backups.back_up(damaged, "full")


@needs_root
def test_unreadable_directory_is_left_out_with_its_content(tmp_path: Path, backups: Backups) -> None:
    source = tmp_path / "source"
    for name in ("closed/file", "open/file", "secret"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"content")
    os.link(source / "secret", source / "secret-again")
    for name, mode in (("", 0o755), ("closed", 0o700), ("open", 0o755), ("open/file", 0o644), ("secret", 0o600)):
        (source / name).chmod(mode)

    def work() -> tuple[MoverReport, list[str]]:
        made = Backups()
        report = made.back_up(Path("source"), "full", unreadable=SKIP)
        return report, paths(made, "full")

    tmp_path.chmod(0o755)
    report, kept = run_as_user(work, cwd=tmp_path)
    assert missing(report) == (3, ["closed/", "secret", "secret-again"])
    assert kept == ["", "open", "open/file"]
    assert (
        f"running as user {NOBODY} without DAC_OVERRIDE: the backup leaves out files that this user may not read"
        in (report.warnings)
    )


@needs_root
def test_root_that_cannot_be_listed_always_fails(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    source.chmod(0o711)

    def work() -> str:
        with pytest.raises(SourceError) as caught:
            Backups().back_up(Path("source"), "full", unreadable=SKIP)
        return caught.value.message

    tmp_path.chmod(0o755)
    assert "EACCES" in run_as_user(work, cwd=tmp_path)


@needs_root
def test_links_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "link").symlink_to("somewhere")
    (source / "file").write_bytes(b"content")

    def work() -> tuple[MoverReport, list[str]]:
        made = Backups()
        return made.back_up(source, "full", unreadable=SKIP), paths(made, "full")

    report, kept = run_with_answers(work, {Call.READLINK: errno.EIO})
    assert (missing(report), kept) == ((1, ["link"]), ["", "file"])


# Attributes beyond the limit


@pytest.fixture
def of_many_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a tree with more attributes than a backup accepts, with a limit of 100 bytes."""
    for module in (tree_reader, walk):
        monkeypatch.setattr(module, "MAX_XATTR_BYTES", 100)
    source = tmp_path / "source"
    (source / "directory").mkdir(parents=True)
    for name in ("directory", "empty", "few", "full"):
        if name != "directory":
            (source / name).write_bytes(b"" if name == "empty" else b"content")
        for number in range(1 if name == "few" else 3):
            os.setxattr(source / name, f"user.{number}", b"v" * 40)
    return source


def test_attributes_beyond_the_limit_are_refused_by_name(of_many_attributes: Path, backups: Backups) -> None:
    with pytest.raises(SourceError, match=r"more extended attributes than a backup can hold.*E2BIG: cannot read"):
        backups.back_up(of_many_attributes, "full")


def test_attributes_beyond_the_limit_are_left_out_with_their_files(of_many_attributes: Path, backups: Backups) -> None:
    report = backups.back_up(of_many_attributes, "full", unreadable=SKIP)
    assert missing(report) == (3, ["directory/", "empty", "full"])
    assert paths(backups, "full") == ["", "few"]


# The next backup reads omitted files again


def test_next_backup_reads_a_file_that_became_readable(backups: Backups) -> None:
    volume = MemorySource(SKIP)
    volume.add(b"fine", (0, b"fine"))
    broken = volume.add(b"broken", (0, b"content"), stamp=1)
    volume.add(b"younger", (0, b"younger"), stamp=1000)
    breaks(broken)
    assert missing(backups.back_up(volume, "full")) == (1, ["broken"])
    volume.omissions = type(volume.omissions)(SKIP)
    broken.on_read = None
    report = backups.back_up(volume, "next", "full")
    assert missing(report) == (0, [])
    assert paths(backups, "next") == ["", "broken", "fine", "younger"]
    assert report.transferred_bytes == len(b"content")


def test_hard_links_to_an_omitted_file_are_left_out_too(backups: Backups) -> None:
    """The extents are new, or the parent has them in a file that has changed."""
    volume = MemorySource(SKIP)
    holder = volume.add(b"a", (0, b"content"), stamp=1)
    link = volume.add(b"b", kind=EntryKind.HARDLINK, target=b"a")
    link.entry = link.entry._replace(inode=holder.entry.inode)
    volume.add(b"c", (0, b"fine"), stamp=1)
    volume.add(b"d", (0, b"younger"), stamp=1000)
    backups.back_up(volume, "full")
    breaks(volume.add(b"a", (0, b"changed"), stamp=2000))
    report = backups.back_up(volume, "next", "full")
    assert missing(report) == (2, ["a", "b"])
    assert paths(backups, "next") == ["", "c", "d"]
    backups.verify("next")


@pytest.mark.parametrize("code", [errno.ENXIO, errno.ENODEV, errno.ENOTCONN, errno.ESHUTDOWN, errno.ENOMEM])
def test_missing_volume_is_not_an_omission(backups: Backups, code: int) -> None:
    volume = MemorySource(SKIP)
    breaks(volume.add(b"file", (0, b"content")), code)
    with pytest.raises(SourceError, match=errno.errorcode[code]):
        backups.back_up(volume, "full")


@pytest.mark.parametrize("code", [errno.EIO, errno.ENXIO])
def test_nothing_of_a_device_is_left_out(backups: Backups, tmp_path: Path, code: int) -> None:
    image = tmp_path / "image"
    image.write_bytes(os.urandom(2 * MIB))

    def work() -> str:
        with pytest.raises(SourceError) as caught:
            backups.back_up(image, "full", mode=VolumeMode.BLOCK, unreadable=SKIP)
        return caught.value.message

    assert errno.errorcode[code] in run_with_answers(work, {Call.PREAD: code})


# Large files


def large(volume: MemorySource, parts: int) -> FileInMemory:
    """Return a sparse file with this many extents, each in its own chunk."""
    return volume.add(b"large", *((number * MIB, b"%d" % number) for number in range(parts)))


@pytest.mark.parametrize("parts", [3, 4096, 9000])
@pytest.mark.parametrize("last", [False, True], ids=["in the middle", "at the end"])
def test_large_file_is_taken_out_of_the_manifest_again(backups: Backups, parts: int, last: bool) -> None:
    volume, reads = MemorySource(SKIP), 0
    volume.add(b"before", (0, b"before"))
    file = large(volume, parts)
    volume.add(b"next", (0, b"next"))

    def fail_late() -> None:
        nonlocal reads
        reads += 1
        if reads >= (parts if last else parts // 2 + 1):
            raise unreadable(b"large")

    file.on_read = fail_late
    report = backups.back_up(volume, "full")
    assert missing(report) == (1, ["large"])
    summary = backups.open("full").summary
    assert (summary.entries, summary.logical_bytes, paths(backups, "full")) == (3, 10, ["", "before", "next"])
    backups.verify("full")
    assert volume.open_files == 0


def test_too_many_unreadable_files_fail_the_backup(backups: Backups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cinderblock.volume.omissions.MAX_OMITTED_OBJECTS", 2)
    volume = MemorySource(SKIP)
    for name in (b"a", b"b", b"c"):
        breaks(volume.add(name, (0, b"content")))
    with pytest.raises(SourceError, match="more than 2 files cannot be read"):
        backups.back_up(volume, "full")


def test_walk_says_nothing_of_lost_found_that_it_cannot_read(tmp_path: Path) -> None:
    """The content of lost+found belongs to fsck. A directory after it is still read."""
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "zoo").mkdir()
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = [path for rows in TreeWalk(root, walk.SkippedObjects()).rows() for path in rows.paths]
    finally:
        os.close(root)
    assert found == [b"", b"zoo"]
