from __future__ import annotations

import errno
import os
import random
import socket
import stat
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from cinderblock.errors import SourceChanging, SourceError
from cinderblock.format.entries import Entry, EntryKind, order_key
from cinderblock.volume.tree import walk as tree_walk
from cinderblock.volume.tree.dirfd import MAX_OPEN_DIRECTORIES
from cinderblock.volume.tree.reader import TreeReader
from tests.support.mover.trees import NET_BIND_SERVICE, make_tree
from tests.support.mover.unprivileged import run_as_user


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the walk yield every object in a batch of its own."""
    monkeypatch.setattr(tree_walk, "MAX_ROWS", 1)


def walk(root: Path) -> dict[bytes, Entry]:
    with TreeReader(str(root)) as reader:
        return {entry.path: entry for entry in reader.walk()}


def test_entries_are_ordered_by_path_parts_with_parents_first(source: Path) -> None:
    make_tree(str(source), privileged=os.geteuid() == 0)
    with TreeReader(str(source)) as reader:
        paths = [entry.path for entry in reader.walk()]
    assert paths[0] == b""
    assert paths == sorted(set(paths), key=order_key)
    assert {path.rpartition(b"/")[0] for path in paths} <= set(paths)


def test_two_walks_of_a_tree_are_equal(source: Path) -> None:
    make_tree(str(source), privileged=os.geteuid() == 0)
    assert walk(source) == walk(source)


def test_entry_has_all_metadata_of_a_file(source: Path, as_root: None) -> None:
    path = source / "file"
    path.write_bytes(b"12345")
    os.chown(path, 1000, 2000)
    path.chmod(0o4751)
    os.setxattr(path, "user.b", b"2")
    os.setxattr(path, "user.a", b"\x00")
    os.setxattr(path, "security.capability", NET_BIND_SERVICE)
    os.utime(path, ns=(0, -1_500_000_001))
    status = path.lstat()
    assert walk(source)[b"file"] == Entry(
        b"file",
        EntryKind.FILE,
        mode=0o4751,
        uid=1000,
        gid=2000,
        mtime_ns=-1_500_000_001,
        ctime_ns=status.st_ctime_ns,
        inode=status.st_ino,
        size=5,
        xattrs=((b"security.capability", NET_BIND_SERVICE), (b"user.a", b"\x00"), (b"user.b", b"2")),
    )


def test_every_kind_of_entry_is_distinguished(source: Path, as_root: None) -> None:
    (source / "directory").mkdir()
    (source / "file").touch()
    os.symlink(b"\xff/target", source / "symlink")
    os.mkfifo(source / "fifo")
    os.mknod(source / "character", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(source / "block", stat.S_IFBLK | 0o600, os.makedev(7, 70000))
    found = walk(source)
    assert {path: entry.kind for path, entry in found.items()} == {
        b"": EntryKind.DIRECTORY,
        b"block": EntryKind.BLOCK_DEVICE,
        b"character": EntryKind.CHARACTER_DEVICE,
        b"directory": EntryKind.DIRECTORY,
        b"fifo": EntryKind.FIFO,
        b"file": EntryKind.FILE,
        b"symlink": EntryKind.SYMLINK,
    }
    assert found[b"symlink"].target == b"\xff/target"
    assert (found[b"character"].rdev, found[b"block"].rdev) == (os.makedev(1, 3), os.makedev(7, 70000))


def test_symlink_has_its_own_attributes(source: Path, as_root: None) -> None:
    (source / "file").touch()
    os.setxattr(source / "file", "user.of-the-file", b"")
    os.symlink("file", source / "symlink")
    os.setxattr(source / "symlink", "trusted.of-the-symlink", b"1", follow_symlinks=False)
    assert walk(source)[b"symlink"].xattrs == ((b"trusted.of-the-symlink", b"1"),)


def test_attributes_of_the_machine_are_skipped(source: Path, as_root: None) -> None:
    path = source / "file"
    path.touch()
    os.setxattr(path, "security.somebodys_label", b"label")
    os.setxattr(path, "trusted.SGI_ACL_FILE", b"the ACL once more")
    os.setxattr(path, "user.data", b"data")
    assert walk(source)[b"file"].xattrs == ((b"user.data", b"data"),)


def test_further_names_of_an_inode_are_links_to_the_first(source: Path) -> None:
    (source / "a").mkdir()
    (source / "b").write_bytes(b"content")
    os.link(source / "b", source / "a" / "z")
    os.link(source / "b", source / "c")
    found = walk(source)
    assert found[b"a/z"].kind is EntryKind.FILE
    assert (found[b"b"].kind, found[b"b"].target) == (EntryKind.HARDLINK, b"a/z")
    assert (found[b"c"].kind, found[b"c"].target) == (EntryKind.HARDLINK, b"a/z")


def test_file_with_names_outside_the_tree_is_an_ordinary_file(source: Path, tmp_path: Path) -> None:
    (source / "file").write_bytes(b"content")
    os.link(source / "file", tmp_path / "outside")
    assert walk(source)[b"file"].kind is EntryKind.FILE


def test_sockets_are_skipped_and_counted(source: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(source / "socket"))
    with TreeReader(str(source)) as reader:
        assert [entry.path for entry in reader.walk()] == [b""]
        assert reader.skipped.summaries() == ["sockets left out: 1"]


def test_lost_found_of_the_file_system_is_skipped(ext4: Callable[..., Path]) -> None:
    volume = ext4()
    (volume / "data").mkdir()
    (volume / "data" / "lost+found").mkdir()
    with TreeReader(str(volume)) as reader:
        assert [entry.path for entry in reader.walk()] == [b"", b"data", b"data/lost+found"]
        assert reader.skipped.summaries() == []
    (volume / "lost+found" / "#12").touch()
    with TreeReader(str(volume)) as reader:
        list(reader.walk())
        assert reader.skipped.summaries() == ["entries of lost+found left out: 1"]


def test_another_file_system_mounted_inside_is_not_entered(source: Path, mount: Callable[..., Path]) -> None:
    (source / "mounted").mkdir()
    mount("-t", "tmpfs", "tmpfs", at=source / "mounted")
    (source / "mounted" / "foreign").touch()
    with TreeReader(str(source)) as reader:
        assert [entry.path for entry in reader.walk()] == [b"", b"mounted"]
        assert reader.skipped.mounts == 1


def test_bind_mount_of_the_same_file_system_is_not_entered(
    source: Path, target: Path, mount: Callable[..., Path]
) -> None:
    (source / "mounted").mkdir()
    (target / "foreign").touch()
    mount("--bind", target, at=source / "mounted")
    assert list(walk(source)) == [b"", b"mounted"]


def test_symlinks_are_not_followed(source: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    os.symlink(tmp_path / "outside", source / "inside")
    assert list(walk(source)) == [b"", b"inside"]


def test_paths_may_exceed_the_limit_of_the_kernel(source: Path) -> None:
    fd = os.open(source, os.O_RDONLY)
    for _ in range(30):
        os.mkdir(b"d" * 255, dir_fd=fd)
        child = os.open(b"d" * 255, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = child
    os.close(os.open(b"file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.setxattr(b"/proc/self/fd/%d/file" % fd, "user.deep", b"yes")
    os.close(fd)
    deepest = walk(source)[b"/".join([b"d" * 255] * 30 + [b"file"])]
    assert deepest.xattrs == ((b"user.deep", b"yes"),)


def test_deep_tree_needs_few_descriptors(source: Path) -> None:
    levels = 5 * MAX_OPEN_DIRECTORIES
    fd = os.open(source, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(b"l", dir_fd=fd)
        os.mkdir(b"z", dir_fd=fd)
        child = os.open(b"l", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = child
    os.close(fd)
    before = len(os.listdir("/proc/self/fd"))
    with TreeReader(str(source)) as reader:
        held = [len(os.listdir("/proc/self/fd")) - before for _entry in reader.walk()]
    assert len(held) == 2 * levels + 1
    assert max(held) <= MAX_OPEN_DIRECTORIES + 4


def test_large_directory_needs_memory_only_for_its_names(source: Path) -> None:
    for number in range(20_000):
        os.close(os.open(source / f"a-name-of-20-{number:07}", os.O_CREAT | os.O_WRONLY))
    tracemalloc.start()
    try:
        with TreeReader(str(source)) as reader:
            count = sum(1 for _ in reader.walk())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 20_001
    assert peak < 20_000 * 100


def test_random_names_come_in_order_of_bytes(source: Path) -> None:
    seeded = random.Random(7)
    names = {bytes(seeded.choice(b"aB.-~\x01\x7f\x80\xff\xc3\xa9") for _ in range(1 + i % 5)) for i in range(300)}
    names -= {b".", b".."}
    for name in names:
        os.close(os.open(os.fsencode(source) + b"/" + name, os.O_CREAT | os.O_WRONLY))
    assert list(walk(source)) == [b"", *sorted(names)]


def test_directories_with_large_attributes_come_in_small_batches(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_walk, "MAX_BATCH_XATTR_BYTES", 1000)
    for number in range(10):
        (source / f"{number}").mkdir()
        os.setxattr(source / f"{number}", "user.data", bytes(400))
    root = os.open(source, os.O_RDONLY)
    try:
        found = list(tree_walk.TreeWalk(root, tree_walk.SkippedObjects()).rows())
    finally:
        os.close(root)
    assert max(len(rows.attributes) for rows in found) == 3
    assert [path for rows in found for path in rows.paths] == [b"", *(b"%d" % number for number in range(10))]


def test_objects_removed_during_the_walk_are_counted(source: Path, one_by_one: None) -> None:
    (source / "a").touch()
    (source / "b").mkdir()
    (source / "c").touch()
    with TreeReader(str(source)) as reader:
        entries = reader.walk()
        assert [next(entries).path, next(entries).path] == [b"", b"a"]
        (source / "b").rmdir()
        (source / "c").unlink()
        assert list(entries) == []
        assert reader.skipped.summaries() == ["files that were removed while the volume was read: 2"]


def test_directory_removed_after_it_was_found_is_empty(source: Path, one_by_one: None) -> None:
    (source / "directory").mkdir()
    with TreeReader(str(source)) as reader:
        entries = reader.walk()
        assert [next(entries).path, next(entries).path] == [b"", b"directory"]
        (source / "directory").rmdir()
        assert list(entries) == []


@pytest.mark.parametrize("code", [errno.ESTALE, errno.ENOTDIR, errno.ELOOP])
def test_directory_that_cannot_be_reopened_is_an_error(
    source: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    (source / "directory").mkdir()
    (source / "directory" / "file").touch()

    def fail(*_arguments: object, **_options: object) -> int:
        raise OSError(code, os.strerror(code))

    with TreeReader(str(source)) as reader:
        monkeypatch.setattr(os, "open", fail)
        with pytest.raises(SourceChanging, match="directory was moved"):
            list(reader.walk())


def test_deep_directory_moved_during_the_walk_is_detected(source: Path, one_by_one: None) -> None:
    names = ["l"] * (MAX_OPEN_DIRECTORIES + 10)
    source.joinpath(*names).mkdir(parents=True)
    with TreeReader(str(source)) as reader:
        entries = reader.walk()
        for _ in range(len(names) + 1):
            next(entries)
        (source / "l" / "l").joinpath("l").rename(source / "moved")
        with pytest.raises(SourceChanging) as caught:
            list(entries)
    assert caught.value.reason == "SourceChanging"


def test_missing_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"does not exist: check the volume's mount .*ENOENT.*nowhere"):
        TreeReader(str(tmp_path / "nowhere"))


def test_unreadable_directory_ends_the_walk_and_is_named(source: Path, as_root: None) -> None:
    (source / "open").mkdir()
    (source / "open" / "secret").mkdir(mode=0o700)

    def attempt() -> str:
        with pytest.raises(SourceError) as caught:
            walk(Path())
        return caught.value.message

    assert run_as_user(attempt, cwd=source) == (
        "access denied: run the mover as root, or as a user who may read the whole volume; "
        "unreadable Skip (--skip-unreadable) leaves it out (EACCES: cannot open open/secret)"
    )


def test_device_error_names_the_path(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "caf\udce9").touch()

    def fail(*_arguments: object, **_options: object) -> list[str]:
        raise OSError(errno.EIO, "Input/output error")

    with TreeReader(str(source)) as reader:
        entries = reader.walk()
        next(entries)
        monkeypatch.setattr(os, "listxattr", fail)
        with pytest.raises(SourceError, match=r"I/O error.*EIO: cannot read caf\\xe9"):
            next(entries)
