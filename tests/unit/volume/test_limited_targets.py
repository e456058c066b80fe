"""Tests of targets that reject metadata, or report success and do nothing."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cinderblock.api.losses import Loss
from cinderblock.errors import TargetError
from cinderblock.format.entries import Entry, EntryKind
from cinderblock.volume.metadata_support import Feature, MetadataSupport
from cinderblock.volume.tree.writer import TreeWriter
from tests.support.mover.unprivileged import IGNORED, NOBODY, Call, run_as_user, run_with_answers

ROOT = Entry(b"", EntryKind.DIRECTORY, mode=0o755, mtime_ns=1)
MIB = 1 << 20
SECOND = 1_000_000_000
IN_2106 = 4_300_000_000 * SECOND


def put(writer: TreeWriter, *entries: Entry, content: bytes = b"") -> None:
    """Put entries, and write ``content`` to the beginning of files."""
    for entry in entries:
        made = writer.put(entry)
        if made is not None:
            with made:
                made.write(0, content[: entry.size])
                made.finish()


def restored(target: Path, *entries: Entry, is_strict: bool = False, content: bytes = b"") -> list[Loss]:
    """Restore entries, and return the losses."""
    with TreeWriter(str(target), MetadataSupport(), is_strict=is_strict) as writer:
        put(writer, ROOT, *entries, content=content)
        writer.finish()
        return writer.losses.list_losses()


def error_of(target: Path, *entries: Entry) -> str:
    """Restore entries strictly, and return the message of the error that ends it."""
    with pytest.raises(TargetError) as caught:
        restored(target, *entries, is_strict=True)
    assert caught.value.permanent
    return caught.value.message


def of_another(name: bytes, **fields: int) -> Entry:
    return Entry(name, EntryKind.FILE, **{"mode": 0o640, "uid": 7, "gid": 8, "mtime_ns": 5} | fields)


KINDS = (
    of_another(b"file"),
    Entry(b"link", EntryKind.SYMLINK, target=b"file", uid=7, gid=8, mtime_ns=5),
    Entry(b"pipe", EntryKind.FIFO, mode=0o640, uid=7, gid=8, mtime_ns=5),
)


@pytest.mark.parametrize("entry", KINDS, ids=lambda entry: entry.kind.name)
@pytest.mark.parametrize(("answer", "verb"), [(IGNORED, "only pretends to set"), (errno.EPERM, "refuses")])
def test_owner_that_cannot_be_set_ends_a_strict_restore(
    target: Path, as_root: None, entry: Entry, answer: int, verb: str
) -> None:
    message = run_with_answers(lambda: error_of(target, entry), {Call.CHOWN: answer})
    assert message.startswith(f"the target {verb} owners of files, ")
    for word in (
        "NFS with root_squash",
        "EFS access points",
        "SMB",
        "BestEffort",
        "--best-effort",
        entry.path.decode(),
    ):
        assert word in message


@pytest.mark.parametrize("answer", [IGNORED, errno.EPERM, errno.EOPNOTSUPP])
def test_best_effort_continues_and_names_three_files(target: Path, as_root: None, answer: int) -> None:
    entries = [of_another(b"file%d" % number) for number in range(5)]
    lost = run_with_answers(lambda: restored(target, *entries), {Call.CHOWN: answer})
    assert lost == [Loss(what="owners of files", objects=5, examples=["file0", "file1", "file2"])]
    assert {path.stat().st_mtime_ns for path in target.iterdir()} == {5}


def test_setuid_program_loses_its_bits_if_its_owner_was_not_set(target: Path, as_root: None) -> None:
    program = of_another(b"program", mode=0o6755)
    run_with_answers(lambda: restored(target, program), {Call.CHOWN: IGNORED})
    assert stat.S_IMODE((target / "program").stat().st_mode) == 0o755


def test_correct_owner_is_neither_set_nor_checked(target: Path, as_root: None) -> None:
    here = of_another(b"file", uid=0, gid=0)
    assert run_with_answers(lambda: restored(target, here, is_strict=True), {Call.CHOWN: errno.EIO}) == []


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS])
def test_errors_of_the_volume_always_end_the_restore(target: Path, as_root: None, code: int) -> None:
    def work() -> str:
        with pytest.raises(TargetError) as caught:
            restored(target, of_another(b"file"))
        return caught.value.message

    assert errno.errorcode[code] in run_with_answers(work, {Call.CHOWN: code})


@pytest.mark.parametrize("answer", [IGNORED, errno.EPERM])
def test_unsupported_modes_are_counted(target: Path, as_root: None, answer: int) -> None:
    entries = [Entry(b"d", EntryKind.DIRECTORY, mode=0o750, mtime_ns=5), *KINDS]
    answers = {Call.CHMOD: answer}
    message = run_with_answers(lambda: error_of(target, *entries), answers)
    assert "modes of files" in message
    lost = run_with_answers(lambda: restored(target, *entries), answers)
    named = ["d", "file", "pipe"]
    assert lost == [Loss(what="modes of files", objects=3, examples=named)]


def test_dropped_setgid_bit_is_counted(target: Path, as_root: None) -> None:
    """Without CAP_FSETID, chmod(2) silently drops the bit if the process is not in the file's group."""
    os.chown(target, NOBODY, 7)
    target.chmod(0o2777)

    def work() -> list[Loss]:
        with TreeWriter(".") as writer:
            put(writer, ROOT._replace(uid=NOBODY, gid=7, mode=0o2777))
            put(writer, Entry(b"d", EntryKind.DIRECTORY, mode=0o2755, uid=NOBODY, gid=7, mtime_ns=5))
            writer.finish()
            return writer.losses.list_losses()

    assert run_as_user(work, cwd=target) == [
        Loss(what="setgid bits of files of other groups", objects=1, examples=["d"])
    ]


@pytest.mark.parametrize("answer", [IGNORED, errno.EOPNOTSUPP])
def test_unsupported_extended_attributes_are_counted(target: Path, as_root: None, answer: int) -> None:
    entries = [of_another(b"a", uid=0, gid=0)._replace(xattrs=((b"user.one", b"1"), (b"user.two", b"2")))]
    message = run_with_answers(lambda: error_of(target, *entries), {Call.SETXATTR: answer})
    assert "extended attributes" in message
    lost = run_with_answers(lambda: restored(target, *entries), {Call.SETXATTR: answer})
    assert lost == [Loss(what="extended attributes", objects=1, examples=["a"])]


def test_unsupported_symbolic_links_and_pipes_are_counted(target: Path, as_root: None) -> None:
    answers = {Call.SYMLINK: errno.EOPNOTSUPP, Call.MKNOD: errno.EPERM}
    again = Entry(b"zlink", EntryKind.HARDLINK, target=b"link")
    assert "symbolic links" in run_with_answers(lambda: error_of(target, *KINDS), answers)
    lost = run_with_answers(lambda: restored(target, *KINDS, again), answers)
    assert lost == [
        Loss(what="symbolic links", objects=1, examples=["link"]),
        Loss(what="named pipes", objects=1, examples=["pipe"]),
    ]
    assert [path.name for path in target.iterdir()] == ["file"]


def test_unsupported_hard_links_become_copies_of_the_inode(target: Path, as_root: None) -> None:
    file = of_another(b"a", size=8 * MIB)._replace(xattrs=((b"user.kept", b"1"),))
    symlink = Entry(b"b", EntryKind.SYMLINK, target=b"nowhere", uid=7, mtime_ns=6)
    links = [
        Entry(b"y", EntryKind.HARDLINK, target=b"a"),
        Entry(b"z", EntryKind.HARDLINK, target=b"b"),
    ]
    answers = {Call.LINK: errno.EPERM}
    assert "hard links" in run_with_answers(lambda: error_of(target, file, links[0]), answers)
    content = os.urandom(MIB + 5)
    lost = run_with_answers(lambda: restored(target, file, symlink, *links, content=content), answers)
    assert lost == [Loss(what="hard links (restored as copies)", objects=2, examples=["y", "z"])]
    copy, status = target / "y", (target / "y").stat()
    assert copy.read_bytes() == (target / "a").read_bytes() == content + bytes(7 * MIB - 5)
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (7, 8, 0o640, 5)
    assert (status.st_nlink, os.getxattr(copy, "user.kept")) == (1, b"1")
    assert status.st_blocks * 512 < 3 * MIB
    linked = (target / "z").lstat()
    assert (os.readlink(target / "z"), linked.st_uid, linked.st_mtime_ns) == ("nowhere", 7, 6)


def test_pipe_in_an_unprivileged_restore_needs_no_capability(target: Path, as_root: None) -> None:
    os.chown(target, NOBODY, NOBODY)

    def work() -> list[str]:
        with TreeWriter(".") as writer:
            put(writer, ROOT._replace(uid=NOBODY, gid=NOBODY))
            put(writer, Entry(b"pipe", EntryKind.FIFO, mode=0o600, uid=NOBODY, gid=NOBODY, mtime_ns=5))
            writer.finish()
            return writer.losses.summaries()

    assert run_as_user(work, cwd=target) == []
    assert (target / "pipe").is_fifo()


def test_expected_losses_are_counted_with_examples_in_a_strict_restore(target: Path, as_root: None) -> None:
    os.chown(target, NOBODY, NOBODY)
    rooted = ROOT._replace(uid=NOBODY, gid=NOBODY)

    def work() -> list[Loss]:
        with TreeWriter(".") as writer:
            assert writer.losses.lacks(Feature.OWNERS)
            put(writer, rooted, of_another(b"file"), of_another(b"other"))
            writer.finish()
            return writer.losses.list_losses()

    assert run_as_user(work, cwd=target) == [Loss(what="owners of files", objects=2, examples=["file", "other"])]


@pytest.mark.parametrize("more", [("-I", "128"), ("-I", "256")], ids=["inodes of 128 bytes", "inodes of 256 bytes"])
def test_fractions_of_seconds_are_counted_and_end_nothing(ext4: Callable[..., Path], more: tuple[str, ...]) -> None:
    volume = ext4(more=more)
    exact, rounded = of_another(b"exact", mtime_ns=5 * SECOND), of_another(b"rounded", mtime_ns=5 * SECOND + 1)
    lost = restored(volume, exact, rounded, is_strict=True)
    coarse = [Loss(what="fractions of times", objects=2, examples=["rounded", "."])]
    assert lost == (coarse if more == ("-I", "128") else [])


def test_year_that_ext4_cannot_hold_ends_a_strict_restore(ext4: Callable[..., Path]) -> None:
    volume = ext4(more=("-I", "128"))
    late = of_another(b"late", mtime_ns=IN_2106)
    message = error_of(volume, late)
    for word in (
        "times of files",
        "ext4 with inodes of 128 bytes",
        "--best-effort",
        "late has 2147483647 s since 1970",
    ):
        assert word in message
    (times,) = [loss for loss in restored(volume, late) if loss.what == "times of files"]
    assert (times.objects, times.examples) == (1, ["late"])


def test_year_that_xfs_cannot_hold_ends_a_strict_restore(tmp_path: Path, mount: Callable[..., Path]) -> None:
    image, volume = tmp_path / "xfs.img", tmp_path / "xfs"
    with image.open("xb") as file:
        file.truncate(320 * MIB)
    volume.mkdir()
    subprocess.run(["mkfs.xfs", "-q", "-m", "bigtime=0", str(image)], check=True)
    mount("-o", "loop", image, at=volume)
    assert "XFS without bigtime" in error_of(volume, of_another(b"late", mtime_ns=IN_2106))
    assert restored(volume, of_another(b"fine", mtime_ns=5 * SECOND + 7), is_strict=True) == []


def test_unsupported_times_are_counted(target: Path, as_root: None) -> None:
    lost = run_with_answers(lambda: restored(target, of_another(b"file")), {Call.UTIME: IGNORED})
    assert lost == [Loss(what="times of files", objects=2, examples=["file", "."])]
    message = run_with_answers(lambda: error_of(target, of_another(b"file")), {Call.UTIME: errno.ENOSYS})
    assert "refuses times of files" in message
