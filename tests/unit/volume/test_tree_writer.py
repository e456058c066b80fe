from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cinderblock.errors import IntegrityError, TargetError
from cinderblock.format.entries import Entry, EntryKind
from cinderblock.volume.tree.dirfd import MAX_OPEN_DIRECTORIES
from cinderblock.volume.tree.rows import StatFields, make_entry
from cinderblock.volume.tree.target_file import TargetFile
from cinderblock.volume.tree.writer import TreeWriter
from tests.support.mover.compare import compare_trees
from tests.support.mover.copies import copy_tree
from tests.support.mover.trees import DEFAULT_ACL, edit_tree, make_tree

MIB = 1 << 20
ROOT = Entry(b"", EntryKind.DIRECTORY, mode=0o755)
_FS_IOC_SETFLAGS = 0x40086602
_IMMUTABLE = 0x10


@pytest.fixture
def tree(source: Path) -> Path:
    """Return a tree with every kind of entry that the tests' user may create."""
    make_tree(str(source), privileged=os.geteuid() == 0)
    return source


def differences(left: Path, right: Path) -> list[str]:
    return compare_trees(str(left), str(right), holes=True)


def inodes(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.lstat().st_ino for path in (root / "sizes").iterdir()}


def put_file(writer: TreeWriter, entry: Entry, content: bytes = b"") -> None:
    file = writer.put(entry)
    assert isinstance(file, TargetFile)
    with file:
        file.write(0, content)
        file.finish()


def test_empty_directory_becomes_equal_to_a_tree_with_everything(tree: Path, target: Path) -> None:
    result = copy_tree(str(tree), str(target))
    assert differences(tree, target) == []
    assert result.losses == []


def test_restore_over_an_equal_tree_writes_nothing(tree: Path, target: Path) -> None:
    copy_tree(str(tree), str(target))
    before = inodes(target)
    assert copy_tree(str(tree), str(target)).written == 0
    assert inodes(target) == before
    assert differences(tree, target) == []


@pytest.mark.parametrize("seed", range(12))
def test_tree_that_was_edited_becomes_equal_again(tree: Path, target: Path, seed: int) -> None:
    copy_tree(str(tree), str(target))
    assert edit_tree(str(target), seed=seed, edits=60)
    assert differences(tree, target) != []
    copy_tree(str(tree), str(target))
    assert differences(tree, target) == []


def test_tree_of_another_shape_becomes_equal(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_tree(str(other), seed=99, files=200, privileged=os.geteuid() == 0)
    edit_tree(str(other), seed=5, edits=100)
    copy_tree(str(tree), str(other))
    assert differences(tree, other) == []


def test_everything_can_become_nothing(tree: Path, target: Path) -> None:
    copy_tree(str(tree), str(target))
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        writer.finish()
    assert list(target.iterdir()) == []


def test_restore_to_a_volume_leaves_its_lost_found_alone(tree: Path, ext4: Callable[..., Path]) -> None:
    volume = ext4(mib=64)
    (volume / "lost+found" / "#12").write_bytes(b"rescued")
    (volume / "extra").mkdir()
    copy_tree(str(tree), str(volume))
    assert differences(tree, volume) == []
    assert (volume / "lost+found" / "#12").read_bytes() == b"rescued"


@pytest.mark.parametrize("present", [b"", b"short", b"exactly this", b"something much longer than it"])
def test_existing_file_keeps_its_inode_and_gets_the_content(target: Path, present: bytes) -> None:
    path = target / "file"
    path.write_bytes(present)
    inode = path.stat().st_ino
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        put_file(writer, Entry(b"file", EntryKind.FILE, mode=0o640, size=12), b"exactly this")
        writer.finish()
    assert (path.read_bytes(), path.stat().st_ino, stat.S_IMODE(path.stat().st_mode)) == (b"exactly this", inode, 0o640)


def test_holes_are_punched_into_existing_data(target: Path) -> None:
    path = target / "file"
    path.write_bytes(os.urandom(8 * MIB))
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        file = writer.put(Entry(b"file", EntryKind.FILE, mode=0o600, size=6 * MIB))
        assert file is not None
        assert not file.is_blank
        file.clear(0, MIB + 5)
        file.clear(2 * MIB, 4 * MIB)
        file.finish()
        writer.finish()
    content = path.read_bytes()
    assert len(content) == 6 * MIB
    assert not any(content[: MIB + 5])
    assert any(content[MIB + 5 : 2 * MIB])
    assert not any(content[2 * MIB :])
    assert path.stat().st_blocks * 512 <= MIB + 8192


def test_zeros_are_written_if_holes_cannot_be_punched(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cinderblock.volume.kernel.file_io.punch_hole", lambda *_range: False)
    path = target / "file"
    path.write_bytes(os.urandom(3 * MIB))
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        file = writer.put(Entry(b"file", EntryKind.FILE, mode=0o600, size=3 * MIB))
        assert file is not None
        file.clear(100, 2 * MIB)
        file.finish()
        writer.finish()
    content = path.read_bytes()
    assert any(content[:100])
    assert not any(content[100 : 2 * MIB + 100])
    assert any(content[2 * MIB + 100 :])


def test_new_file_that_is_only_a_hole_takes_no_space(target: Path) -> None:
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        file = writer.put(Entry(b"file", EntryKind.FILE, mode=0o600, size=1 << 40))
        assert file is not None
        assert file.is_blank
        file.clear(0, 1 << 40)
        file.finish()
        writer.finish()
    status = (target / "file").stat()
    assert (status.st_size, status.st_blocks) == (1 << 40, 0)


def test_current_content_of_a_file_can_be_read(target: Path) -> None:
    (target / "file").write_bytes(b"0123456789")
    buffer = memoryview(bytearray(100))
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        file = writer.put(Entry(b"file", EntryKind.FILE, size=8))
        assert file is not None
        assert file.read_into(3, buffer) == 5
        assert bytes(buffer[:5]) == b"34567"
        file.finish()


def test_files_may_be_finished_after_their_directory_was_left(target: Path) -> None:
    (target / "a").mkdir()
    (target / "a" / "extra").touch()
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT._replace(mtime_ns=5))
        writer.put(Entry(b"a", EntryKind.DIRECTORY, mode=0o500, mtime_ns=7))
        file = writer.put(Entry(b"a/file", EntryKind.FILE, mode=0o400, size=3, mtime_ns=9))
        writer.put(Entry(b"b", EntryKind.DIRECTORY, mode=0o700))
        assert file is not None
        file.write(0, b"abc")
        file.finish()
        writer.finish()
    assert [path.name for path in (target / "a").iterdir()] == ["file"]
    assert (target / "a" / "file").read_bytes() == b"abc"
    times = {name: (target / name).stat().st_mtime_ns for name in (".", "a", "a/file")}
    assert times == {".": 5, "a": 7, "a/file": 9}


def test_unfinished_file_is_an_error(target: Path) -> None:
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        file = writer.put(Entry(b"file", EntryKind.FILE, size=3))
        assert file is not None
        file.close()
        with pytest.raises(TargetError, match="1 files were not finished"):
            writer.finish()


def test_symlink_in_place_of_a_directory_is_replaced(target: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_bytes(b"keep")
    (target / "dir").symlink_to(outside)
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        writer.put(Entry(b"dir", EntryKind.DIRECTORY, mode=0o755))
        put_file(writer, Entry(b"dir/passwd", EntryKind.FILE, mode=0o644, size=4), b"evil")
        writer.finish()
    assert [path.name for path in outside.iterdir()] == ["keep"]
    assert not (target / "dir").is_symlink()
    assert (target / "dir" / "passwd").read_bytes() == b"evil"


def test_symlink_in_place_of_a_file_is_replaced(target: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"keep")
    outside.chmod(0o640)
    (target / "file").symlink_to(outside)
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        put_file(writer, Entry(b"file", EntryKind.FILE, mode=0o777, size=4), b"evil")
        writer.finish()
    assert (outside.read_bytes(), stat.S_IMODE(outside.stat().st_mode)) == (b"keep", 0o640)
    assert not (target / "file").is_symlink()


def test_longest_symlink_is_kept(source: Path, target: Path) -> None:
    (source / "symlink").symlink_to("x" * 4095)
    copy_tree(str(source), str(target))
    assert os.readlink(target / "symlink") == "x" * 4095


def test_extra_symlinks_are_removed_without_their_targets(target: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").touch()
    (target / "extra").mkdir()
    (target / "extra" / "link").symlink_to(outside)
    (target / "link").symlink_to(outside)
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        writer.finish()
    assert list(target.iterdir()) == []
    assert (outside / "keep").exists()


def test_hard_link_never_follows_a_symlink(target: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"outside")
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        writer.put(Entry(b"a", EntryKind.SYMLINK, target=os.fsencode(tmp_path / "outside")))
        writer.put(Entry(b"b", EntryKind.HARDLINK, target=b"a"))
        writer.finish()
    assert (target / "b").is_symlink()
    assert (tmp_path / "outside").stat().st_nlink == 1


def test_hard_linked_files_become_separate_files(target: Path) -> None:
    (target / "a").write_bytes(b"shared")
    os.link(target / "a", target / "b")
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        put_file(writer, Entry(b"a", EntryKind.FILE, mode=0o600, size=6), b"aaaaaa")
        put_file(writer, Entry(b"b", EntryKind.FILE, mode=0o600, size=6), b"bbbbbb")
        writer.finish()
    assert ((target / "a").read_bytes(), (target / "b").read_bytes()) == (b"aaaaaa", b"bbbbbb")


@pytest.mark.parametrize("field", ["size", "mtime_ns", "mode", "uid"])
def test_inode_with_names_outside_the_target_is_not_changed(target: Path, tmp_path: Path, field: str) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"of others")
    os.link(outside, target / "file")
    before = outside.stat()
    entry = make_entry(b"file", StatFields.from_stat(before))
    entry = entry._replace(**{field: getattr(entry, field) // 2 + 1})
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        put_file(writer, entry, b"x" * entry.size)
        writer.finish()
    after = outside.stat()
    assert outside.read_bytes() == b"of others"
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)
    assert (target / "file").read_bytes() == b"x" * entry.size


def test_running_program_is_replaced(target: Path) -> None:
    path = target / "program"
    shutil.copy("/bin/sleep", path)
    with subprocess.Popen([path, "60"]) as running, TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        put_file(writer, Entry(b"program", EntryKind.FILE, mode=0o755, size=3), b"new")
        writer.finish()
        running.terminate()
    assert path.read_bytes() == b"new"


def test_correct_links_are_kept(target: Path) -> None:
    (target / "a").write_bytes(b"shared")
    os.link(target / "a", target / "b")
    inode, entry = (target / "a").stat().st_ino, make_entry(b"a", StatFields.from_stat((target / "a").stat()))
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        put_file(writer, entry, b"shared")
        writer.put(Entry(b"b", EntryKind.HARDLINK, target=b"a"))
        writer.finish()
    assert (target / "a").stat().st_ino == (target / "b").stat().st_ino == inode


def test_default_acl_of_the_target_is_not_inherited(target: Path) -> None:
    os.setxattr(target, "system.posix_acl_default", DEFAULT_ACL)
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        writer.put(Entry(b"dir", EntryKind.DIRECTORY, mode=0o755))
        put_file(writer, Entry(b"dir/file", EntryKind.FILE, mode=0o644))
        put_file(writer, Entry(b"file", EntryKind.FILE, mode=0o644))
        writer.finish()
    for path in (target, target / "dir", target / "dir" / "file", target / "file"):
        assert os.listxattr(path) == []


def test_umask_changes_no_mode(target: Path) -> None:
    before = os.umask(0o077)
    try:
        with TreeWriter(str(target)) as writer:
            writer.put(ROOT)
            writer.put(Entry(b"dir", EntryKind.DIRECTORY, mode=0o777))
            writer.put(Entry(b"fifo", EntryKind.FIFO, mode=0o666))
            put_file(writer, Entry(b"file", EntryKind.FILE, mode=0o666))
            writer.finish()
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in sorted(target.iterdir())] == [0o777, 0o666, 0o666]


def test_deep_tree_is_written_and_removed_with_few_descriptors(target: Path) -> None:
    levels = 4 * MAX_OPEN_DIRECTORIES
    before = len(os.listdir("/proc/self/fd"))
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        held = []
        for level in range(1, levels):
            writer.put(Entry(b"/".join([b"long-name" * 10] * level), EntryKind.DIRECTORY, mode=0o755, mtime_ns=level))
            held.append(len(os.listdir("/proc/self/fd")) - before)
        writer.finish()
    assert max(held) <= MAX_OPEN_DIRECTORIES + 5
    assert (target / ("long-name" * 10)).stat().st_mtime_ns == 1
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        writer.finish()
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(
    ("paths", "complaint"),
    [
        ([b"../outside"], "without its directory"),
        ([b".."], "impossible path"),
        ([b"."], "impossible path"),
        ([b"a", b"a/"], "impossible path"),
        ([b"/etc"], "impossible path"),
        ([b"a", b"a/.."], "impossible path"),
        ([b"zero\0byte"], "impossible path"),
        ([b"missing/file"], "without its directory"),
        ([b"b", b"a"], "out of order"),
        ([b"a", b"a"], "out of order"),
        ([b"a", b"a/b", b"c", b"a/d"], "without its directory"),
    ],
)
def test_impossible_paths_are_rejected(target: Path, paths: list[bytes], complaint: str) -> None:
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        for path in paths[:-1]:
            writer.put(Entry(path, EntryKind.DIRECTORY, mode=0o700))
        with pytest.raises(IntegrityError, match=complaint):
            writer.put(Entry(paths[-1], EntryKind.DIRECTORY, mode=0o700))


@pytest.mark.parametrize("link", [b"", b"..", b"../x", b"z", b"a/../a", b"/etc/passwd", b"b"])
def test_impossible_hard_links_are_rejected(target: Path, link: bytes) -> None:
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        writer.put(Entry(b"a", EntryKind.FIFO))
        with pytest.raises(IntegrityError, match="impossible hard link: b"):
            writer.put(Entry(b"b", EntryKind.HARDLINK, target=link))


def test_tree_must_begin_with_its_root(target: Path) -> None:
    with TreeWriter(str(target)) as writer, pytest.raises(IntegrityError, match="begins with a, not with its root"):
        writer.put(Entry(b"a", EntryKind.DIRECTORY))


def test_mount_inside_the_target_is_not_emptied(target: Path, mount: Callable[..., Path]) -> None:
    (target / "extra" / "mounted").mkdir(parents=True)
    mount("-t", "tmpfs", "tmpfs", at=target / "extra" / "mounted")
    (target / "extra" / "mounted" / "foreign").touch()
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        with pytest.raises(TargetError, match=r"something is mounted there.*EBUSY: cannot remove extra/mounted"):
            writer.finish()
    assert (target / "extra" / "mounted" / "foreign").exists()


def test_mount_for_an_empty_directory_is_left_unchanged(target: Path, mount: Callable[..., Path]) -> None:
    (target / "mounted").mkdir()
    mount("-t", "tmpfs", "-o", "mode=711", "tmpfs", at=target / "mounted")
    (target / "mounted" / "foreign").touch()
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        writer.put(Entry(b"mounted", EntryKind.DIRECTORY, mode=0o700))
        writer.finish()
    assert (target / "mounted" / "foreign").exists()
    assert stat.S_IMODE((target / "mounted").stat().st_mode) == 0o711


def test_nothing_is_restored_into_a_mount(target: Path, mount: Callable[..., Path]) -> None:
    (target / "mounted").mkdir()
    mount("-t", "tmpfs", "tmpfs", at=target / "mounted")
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        writer.put(Entry(b"mounted", EntryKind.DIRECTORY, mode=0o700))
        with pytest.raises(TargetError, match="EBUSY: cannot create mounted/file"):
            writer.put(Entry(b"mounted/file", EntryKind.FILE))
    assert list((target / "mounted").iterdir()) == []


def test_full_volume_is_reported_with_the_file(ext4: Callable[..., Path]) -> None:
    volume = ext4(mib=4)
    with TreeWriter(str(volume)) as writer:
        writer.put(ROOT)
        with pytest.raises(TargetError, match=r"volume is full: restore to a larger .*ENOSPC: cannot write caf\\xe9"):
            put_file(writer, Entry(b"caf\xe9", EntryKind.FILE, size=8 * MIB), os.urandom(8 * MIB))


def fill(writer: TreeWriter) -> None:
    """Put more entries than a small volume has inodes."""
    for number in range(100_000):
        writer.put(Entry(b"n%08d" % number, EntryKind.FIFO))


def test_attribute_too_large_is_not_reported_as_full(ext4: Callable[..., Path]) -> None:
    volume = ext4(block=1024)
    entry = Entry(b"file", EntryKind.FILE, xattrs=((b"user.large", b"v" * 2000),))
    with TreeWriter(str(volume)) as writer:
        writer.put(ROOT)
        file = writer.put(entry)
        assert file is not None
        with file, pytest.raises(TargetError, match=r"no extended attribute of this size.*E2BIG: cannot finish file"):
            file.finish()


def test_volume_without_free_inodes_is_reported(ext4: Callable[..., Path]) -> None:
    volume = ext4(mib=1)
    with TreeWriter(str(volume)) as writer:
        writer.put(ROOT)
        with pytest.raises(TargetError, match="ENOSPC: cannot create n"):
            fill(writer)


def test_read_only_volume_is_reported(ext4: Callable[..., Path], mount: Callable[..., Path], tmp_path: Path) -> None:
    volume = ext4()
    readonly = tmp_path / "readonly"
    readonly.mkdir()
    mount("--bind", "-o", "ro", volume, at=readonly)
    with TreeWriter(str(readonly)) as writer, pytest.raises(TargetError, match="read-only: check its access mode"):
        writer.put(ROOT)


def test_immutable_file_is_reported_as_such(target: Path, as_root: None) -> None:
    path = target / "immutable"
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("l", _IMMUTABLE))
    try:
        with TreeWriter(str(target)) as writer:
            writer.put(ROOT)
            with pytest.raises(TargetError, match=r"it may be immutable .*EPERM: cannot remove immutable"):
                writer.finish()
    finally:
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("l", 0))
        os.close(fd)


@pytest.mark.parametrize("code", [errno.EIO, errno.EDQUOT, errno.ENOSPC])
def test_error_of_the_final_sync_is_an_error(target: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(_fd: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("cinderblock.volume.tree.writer.sync_file_system", fail)
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        with pytest.raises(TargetError, match=errno.errorcode[code]):
            writer.finish()


def test_missing_target_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="nowhere"):
        TreeWriter(str(tmp_path / "nowhere"))


def test_target_that_is_not_a_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TargetError, match=r"ENOTDIR: cannot restore to .*file"):
        TreeWriter(str(tmp_path / "file"))


def test_restore_leaves_no_open_descriptor(tree: Path, target: Path) -> None:
    before = os.listdir("/proc/self/fd")
    copy_tree(str(tree), str(target))
    assert len(os.listdir("/proc/self/fd")) == len(before)
