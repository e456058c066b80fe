"""Trees with everything that a file system allows, and random edits of them, generated from a seed.

    python tests/support/mover/trees.py make DIR --seed 1 [--files 60] [--unprivileged]
    python tests/support/mover/trees.py edit DIR --seed 2 [--edits 20]
    python tests/support/mover/trees.py many DIR --files 100000

It uses only the standard library, so that it runs inside any pod. The same seed makes the same tree. Nothing is skipped
silently: without ``--unprivileged`` a missing capability (CHOWN, FOWNER, SETFCAP, MKNOD, SYS_ADMIN) is an error.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import socket
import stat
import struct
from collections.abc import Callable

SECOND = 1_000_000_000
MTIMES = (
    0,
    1,
    -1,
    -1_234_567_891,
    -2_000_000_000 * SECOND + 7,
    1_700_000_000 * SECOND + 123_456_789,
    2**31 * SECOND + 999_999_999,
    13_569_465_600 * SECOND + 1,
)
"""Nanoseconds since 1970: around 1970, before it, 1906, now, beyond 2038, and the year 2400 (ext4 ends in 2446)."""
MODES = (0o644, 0o600, 0o755, 0o000, 0o400, 0o777, 0o4755, 0o2755, 0o6711, 0o1644, 0o4000)
OWNERS = ((0, 0), (1000, 1000), (65534, 65534), (12345, 54321), (2**31, 2**32 - 2))
NAMES = (
    b"plain",
    b"with space",
    b" leading",
    b"trailing ",
    b"-rf",
    b"...",
    b"new\nline",
    b"tab\tand\x7f",
    b"star*?[x]",
    b"back\\slash",
    b"quote'\"`$(x)",
    "größe".encode(),
    "日本語".encode(),
    "e\u0301".encode(),
    "\u00e9".encode(),
    b"latin1-\xe9\xff",
    b"\x80",
    b"\xed\xa0\x80",
    b"\x01",
    b"UPPER",
    b"upper",
    b"n" * 255,
)
SPARSE_SIZE = 1 << 40
"""A file that is too large to be read completely."""
PATH_MAX = 4096

ANYBODY = 0xFFFFFFFF
ACL_TAGS = {"user::": 1, "user": 2, "group::": 4, "group": 8, "mask": 16, "other": 32}
"""linux/posix_acl_xattr.h"""


def acl(*entries: tuple[str, int, int]) -> bytes:
    """Encode a POSIX ACL for the kernel from (tag, permissions, id) in the order of the tags."""
    body = b"".join(struct.pack("<HHI", ACL_TAGS[tag], permissions, number) for tag, permissions, number in entries)
    return struct.pack("<I", 2) + body


ACCESS_ACL = acl(
    ("user::", 6, ANYBODY), ("user", 4, 1001), ("group::", 4, ANYBODY), ("group", 6, 2002), ("mask", 6, ANYBODY),
    ("other", 0, ANYBODY),
)  # fmt: skip
DEFAULT_ACL = acl(
    ("user::", 7, ANYBODY), ("user", 5, 1001), ("group::", 5, ANYBODY), ("mask", 5, ANYBODY), ("other", 0, ANYBODY)
)
NET_BIND_SERVICE = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""vfs_cap_data, version 2, effective (linux/capability.h)."""


class TreeMaker:
    """Makes one tree below ``root``.

    Attributes:
        privileged: whether to make objects that need a capability.
    """

    def __init__(self, root: str | bytes, seed: int, *, privileged: bool = True) -> None:
        self.root = os.fsencode(root)
        self.privileged = privileged
        self.random = random.Random(seed)

    def make(self, files: int) -> None:
        """Make everything; ``files`` is the number of small files in the random part."""
        os.makedirs(self.root, exist_ok=True)
        makers: list[Callable[[bytes], None]] = [
            self._names, self._modes, self._mtimes, self._sizes, self._sparse, self._links, self._symlinks,
            self._deep, self._attributes, self._fifos, self._inheriting, self._closed,
        ]  # fmt: skip
        if self.privileged:
            makers += [self._owners, self._nodes, self._privileged_attributes, self._closed]
        for maker in dict.fromkeys(makers):
            directory = os.path.join(self.root, maker.__name__.strip("_").encode())
            os.mkdir(directory)
            maker(directory)
        self._random_part(os.path.join(self.root, b"random"), files)
        self._stamp_all()

    def content(self, size: int) -> bytes:
        """Return random bytes, text, or zeros of this size."""
        kind = self.random.randrange(4)
        if kind == 0:
            return bytes(size)
        if kind == 1:
            return (b"the same line again\n" * (size // 20 + 1))[:size]
        return self.random.randbytes(size)

    def file(self, directory: bytes, name: bytes, data: bytes = b"x") -> bytes:
        """Make a file, and return its path."""
        path = os.path.join(directory, name)
        with open(path, "xb") as file:
            file.write(data)
        return path

    def _stamp(self, path: bytes) -> None:
        """Set the mtime of a path to a value from the seed."""
        mtime = self.random.randrange(SECOND * 1_500_000_000, SECOND * 1_800_000_000)
        os.utime(path, ns=(mtime, mtime), follow_symlinks=False)

    def _stamp_all(self) -> None:
        """Set the mtimes of all paths from the seed, except those that were set on purpose."""
        for parent, names, leaves, fd in os.fwalk(self.root, topdown=False):
            for name in sorted(names + leaves):
                if not parent.endswith(b"/mtimes"):
                    self._stamp(b"/proc/self/fd/%d/%s" % (fd, name))
        self._stamp(self.root)

    def _names(self, directory: bytes) -> None:
        for name in NAMES:
            self.file(directory, name, name)
        for name in (b"a", b"a.", b"a-b", b"a\x00b".replace(b"\x00", b"\x01"), b"ab"):
            os.mkdir(os.path.join(directory, b"order-" + name))
            self.file(os.path.join(directory, b"order-" + name), b"inside")

    def _modes(self, directory: bytes) -> None:
        for mode in MODES:
            os.chmod(self.file(directory, b"file-%o" % mode), mode | (0 if self.privileged else 0o400))
            path = os.path.join(directory, b"dir-%o" % mode)
            os.mkdir(path)
            self.file(path, b"inside")
            os.chmod(path, mode | (0 if self.privileged else 0o700))

    def _mtimes(self, directory: bytes) -> None:
        for number, mtime in enumerate(MTIMES):
            path = self.file(directory, b"file-%d" % number)
            os.utime(path, ns=(mtime, mtime))
            path = os.path.join(directory, b"dir-%d" % number)
            os.mkdir(path)
            self.file(path, b"inside")
            os.utime(path, ns=(mtime, mtime))

    def _sizes(self, directory: bytes) -> None:
        for size in (0, 1, 511, 4095, 4096, 4097, 65536, 65537, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_333_333):
            self.file(directory, b"%d" % size, self.random.randbytes(size))

    def _sparse(self, directory: bytes) -> None:
        for name, size, offsets in (
            (b"only-hole", 10 << 20, ()),
            (b"hole-first", 10 << 20, ((10 << 20) - 5,)),
            (b"hole-last", 10 << 20, (0,)),
            (b"hole-between", 20 << 20, (0, 7 << 20, 15 << 20)),
            (b"huge", SPARSE_SIZE, (0, SPARSE_SIZE // 2, SPARSE_SIZE - 4096)),
        ):
            with open(os.path.join(directory, name), "xb") as file:
                for offset in offsets:
                    os.pwrite(file.fileno(), self.random.randbytes(min(4096, size - offset)), offset)
                file.truncate(size)
        self.file(directory, b"zeros-written", bytes(3 << 20))

    def _links(self, directory: bytes) -> None:
        for name in (b"a", b"b", b"c"):
            os.mkdir(os.path.join(directory, name))
        first = self.file(os.path.join(directory, b"b"), b"file", self.random.randbytes(5000))
        for other in (b"a/linked", b"c/linked", b"b/again"):
            os.link(first, os.path.join(directory, other))
        os.symlink(b"nowhere", os.path.join(directory, b"a/symlink"))
        os.link(os.path.join(directory, b"a/symlink"), os.path.join(directory, b"c/symlink"), follow_symlinks=False)
        os.mkfifo(os.path.join(directory, b"a/fifo"))
        os.link(os.path.join(directory, b"a/fifo"), os.path.join(directory, b"c/fifo"))

    def _symlinks(self, directory: bytes) -> None:
        for number, target in enumerate(
            (b".", b"..", b"/etc/passwd", b"dangling", b"\xff\xfe", b"x" * 1023, b"loop", b"../links/a")
        ):
            path = os.path.join(directory, b"to-%d" % number)
            os.symlink(target, path)
            if self.privileged:
                os.chown(path, *OWNERS[number % len(OWNERS)], follow_symlinks=False)

    def _deep(self, directory: bytes) -> None:
        """Make a path of more than PATH_MAX bytes, and many levels of one letter."""
        fd = os.open(directory, os.O_RDONLY)
        for _ in range(PATH_MAX // 200 + 3):
            fd = _make_and_enter(fd, b"d" * 200)
        _make_file_at(fd, b"deepest", b"beyond PATH_MAX")
        os.symlink(b"deepest", b"symlink", dir_fd=fd)
        os.setxattr(b"/proc/self/fd/%d/deepest" % fd, "user.deep", b"yes")
        os.close(fd)
        fd = os.open(directory, os.O_RDONLY)
        for _ in range(200):
            fd = _make_and_enter(fd, b"l")
            _make_file_at(fd, b"z", b"after the directory")
        os.close(fd)

    def _attributes(self, directory: bytes) -> None:
        path = self.file(directory, b"user")
        for name, value in (("user.a", b""), ("user.b", b"\x00\xff"), ("user.größe", b"v" * 1000)):
            os.setxattr(path, name, value)
        path = os.path.join(directory, b"dir")
        os.mkdir(path)
        os.setxattr(path, "user.dir", b"directory")
        path = self.file(directory, b"read-only")
        os.setxattr(path, "user.kept", b"1")
        os.chmod(path, 0o400)
        os.setxattr(self.file(directory, b"acl"), "system.posix_acl_access", ACCESS_ACL)

    def _inheriting(self, directory: bytes) -> None:
        """Make a default ACL that some objects below it lack, and a setgid directory."""
        parent = os.path.join(directory, b"default")
        os.mkdir(parent)
        self.file(parent, b"without")
        os.mkdir(os.path.join(parent, b"without-dir"))
        os.setxattr(parent, "system.posix_acl_default", DEFAULT_ACL)
        self.file(parent, b"inherited")
        os.mkdir(os.path.join(parent, b"inherited-dir"))
        setgid = os.path.join(directory, b"setgid")
        os.mkdir(setgid)
        os.mkdir(os.path.join(setgid, b"without"))
        if self.privileged:
            os.chown(setgid, 0, 4242)
        os.chmod(setgid, 0o2775)
        self.file(setgid, b"inherited")
        os.mkdir(os.path.join(setgid, b"inherited-dir"))

    def _fifos(self, directory: bytes) -> None:
        path = os.path.join(directory, b"fifo")
        os.mkfifo(path)
        os.chmod(path, 0o640)
        with socket.socket(socket.AF_UNIX) as unix:
            fd = os.open(directory, os.O_RDONLY)
            unix.bind(b"/proc/self/fd/%d/socket" % fd)
            os.close(fd)

    def _closed(self, directory: bytes) -> None:
        """Make a directory in which only root can create files without changing its mode."""
        path = os.path.join(directory, b"read-only")
        os.mkdir(path)
        self.file(path, b"file")
        os.mkdir(os.path.join(path, b"below"))
        os.chmod(os.path.join(path, b"below"), 0o500)
        os.chmod(path, 0o500)

    def _owners(self, directory: bytes) -> None:
        for uid, gid in OWNERS:
            path = self.file(directory, b"file-%d-%d" % (uid, gid))
            os.chown(path, uid, gid)
            os.chmod(path, 0o6755)
            path = os.path.join(directory, b"dir-%d-%d" % (uid, gid))
            os.mkdir(path)
            self.file(path, b"inside")
            os.chown(path, uid, gid)

    def _nodes(self, directory: bytes) -> None:
        for name, kind, major, minor in (
            (b"null", stat.S_IFCHR, 1, 3),
            (b"large", stat.S_IFCHR, 300, 70000),
            (b"whiteout", stat.S_IFCHR, 0, 0),
            (b"block", stat.S_IFBLK, 7, 200),
        ):
            path = os.path.join(directory, name)
            os.mknod(path, kind | 0o600, os.makedev(major, minor))
            os.chmod(path, 0o660)
            os.chown(path, 0, 6)
        os.link(os.path.join(directory, b"null"), os.path.join(directory, b"null-again"))

    def _privileged_attributes(self, directory: bytes) -> None:
        path = self.file(directory, b"capability", b"#!/bin/true\n")
        os.chown(path, 1000, 1000)
        os.chmod(path, 0o755)
        os.setxattr(path, "security.capability", NET_BIND_SERVICE)
        path = os.path.join(directory, b"symlink")
        os.symlink(b"x", path)
        with contextlib.suppress(PermissionError):
            # Root in a container lacks CAP_SYS_ADMIN and can neither read nor set trusted.*.
            os.setxattr(self.file(directory, b"trusted"), "trusted.kept", b"t")
            os.setxattr(path, "trusted.of-a-symlink", b"s", follow_symlinks=False)

    def _random_part(self, directory: bytes, files: int) -> None:
        os.mkdir(directory)
        directories = [directory]
        for number in range(files):
            parent = self.random.choice(directories)
            if number % 7 == 0:
                path = os.path.join(parent, b"d%d" % number)
                os.mkdir(path)
                directories.append(path)
            else:
                path = self.file(parent, b"f%d" % number, self.content(self.random.randrange(20_000)))
                os.chmod(path, self.random.choice((0o644, 0o600, 0o755)))


class TreeEditor:
    """Changes a tree at random, for incremental backups and for restores over existing files."""

    def __init__(self, root: str | bytes, seed: int) -> None:
        self.root = os.fsencode(root)
        self.random = random.Random(seed)
        self.maker = TreeMaker(root, seed)

    def edit(self, edits: int) -> list[str]:
        """Make this many edits, and return descriptions of them."""
        actions = (
            self._overwrite, self._append, self._truncate, self._remove, self._add, self._rename, self._change_kind,
            self._touch, self._change_mode, self._set_attribute, self._link, self._break_link, self._change_in_secret,
        )  # fmt: skip
        done = []
        for number in range(edits):
            files, directories = self._find()
            if not files:
                break
            action = self.random.choice(actions)
            path = self.random.choice(files)
            action(path, self.random.choice(directories), number)
            done.append(f"{action.__name__.strip('_')} {path!r}")
        return done

    def _find(self) -> tuple[list[bytes], list[bytes]]:
        """Return the regular files of moderate size and the directories with short paths that this user may change."""
        files, directories = [], []
        for parent, names, leaves in os.walk(self.root):
            names.sort()
            if len(parent) > 1000 or not os.access(parent, os.W_OK | os.X_OK):
                names.clear()
                continue
            directories.append(parent)
            for leaf in sorted(leaves):
                path = os.path.join(parent, leaf)
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode) and status.st_size < 64 << 20 and os.access(path, os.W_OK):
                    files.append(path)
        return files, directories

    def _overwrite(self, path: bytes, _directory: bytes, _number: int) -> None:
        size = os.path.getsize(path)
        with open(path, "r+b") as file:
            file.seek(self.random.randrange(size + 1))
            file.write(self.random.randbytes(self.random.randrange(1, 5000)))

    def _append(self, path: bytes, _directory: bytes, _number: int) -> None:
        with open(path, "ab") as file:
            file.write(self.random.randbytes(self.random.randrange(1, 200_000)))

    def _truncate(self, path: bytes, _directory: bytes, _number: int) -> None:
        os.truncate(path, self.random.randrange(2 * os.path.getsize(path) + 1))

    def _remove(self, path: bytes, _directory: bytes, _number: int) -> None:
        os.unlink(path)

    def _add(self, _path: bytes, directory: bytes, number: int) -> None:
        name = b"added-%d-%d" % (number, self.random.randrange(1 << 30))
        self.maker.file(directory, name, self.maker.content(self.random.randrange(100_000)))

    def _rename(self, path: bytes, directory: bytes, number: int) -> None:
        os.rename(path, os.path.join(directory, b"renamed-%d-%d" % (number, self.random.randrange(1 << 30))))

    def _change_kind(self, path: bytes, _directory: bytes, number: int) -> None:
        """Replace a file by a directory with contents, a symbolic link, or a FIFO."""
        os.unlink(path)
        kind = self.random.randrange(3)
        if kind == 0:
            os.mkdir(path)
            self.maker.file(path, b"in-former-file")
        elif kind == 1:
            os.symlink(b"/etc/target-%d" % number, path)
        else:
            os.mkfifo(path)

    def _touch(self, path: bytes, _directory: bytes, _number: int) -> None:
        self.maker._stamp(path)

    def _change_mode(self, path: bytes, _directory: bytes, _number: int) -> None:
        os.chmod(path, self.random.choice(MODES) | stat.S_IRUSR | stat.S_IWUSR)

    def _set_attribute(self, path: bytes, _directory: bytes, number: int) -> None:
        os.setxattr(path, "user.edited", b"%d" % number)

    def _link(self, path: bytes, directory: bytes, number: int) -> None:
        os.link(path, os.path.join(directory, b"link-%d-%d" % (number, self.random.randrange(1 << 30))))

    def _break_link(self, path: bytes, _directory: bytes, _number: int) -> None:
        """Replace a hard link by a separate inode with the same content."""
        with open(path, "rb") as file:
            data = file.read()
        os.unlink(path)
        with open(path, "xb") as file:
            file.write(data)

    def _change_in_secret(self, path: bytes, _directory: bytes, _number: int) -> None:
        """Change content so that only ctime shows it."""
        status = os.lstat(path)
        if status.st_size:
            with open(path, "r+b") as file:
                file.write(self.random.randbytes(1))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def make_tree(root: str | bytes, *, seed: int = 1, files: int = 60, privileged: bool = True) -> None:
    """Make a tree with every kind of entry below ``root``, which may exist if it is empty."""
    TreeMaker(root, seed, privileged=privileged).make(files)


def edit_tree(root: str | bytes, *, seed: int = 2, edits: int = 20) -> list[str]:
    """Change a tree at random, and return descriptions of the edits."""
    return TreeEditor(root, seed).edit(edits)


def make_many_files(root: str | bytes, *, files: int, per_directory: int = 1000, size: int = 500) -> None:
    """Make many small files with different contents, ``per_directory`` in each directory."""
    for number in range(files):
        directory = os.path.join(os.fsencode(root), b"d%05d" % (number // per_directory))
        if number % per_directory == 0:
            os.makedirs(directory, exist_ok=True)
        fd = os.open(os.path.join(directory, b"file%07d" % number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(fd, (b"%d " % number * size)[:size])
        os.close(fd)


def _make_and_enter(fd: int, name: bytes) -> int:
    """Make a directory in an open one, close that one, and return the new descriptor."""
    os.mkdir(name, dir_fd=fd)
    child = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
    os.close(fd)
    return child


def _make_file_at(fd: int, name: bytes, data: bytes) -> None:
    file = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=fd)
    os.write(file, data)
    os.close(file)


def main() -> None:
    """Make or edit a tree from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "edit", "many"))
    parser.add_argument("directory")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--edits", type=int, default=20)
    parser.add_argument("--unprivileged", action="store_true", help="leave out what needs a capability")
    arguments = parser.parse_args()
    os.umask(0o022)
    if arguments.what == "make":
        make_tree(
            arguments.directory, seed=arguments.seed, files=arguments.files, privileged=not arguments.unprivileged
        )
    elif arguments.what == "edit":
        for line in edit_tree(arguments.directory, seed=arguments.seed, edits=arguments.edits):
            print(line)
    else:
        make_many_files(arguments.directory, files=arguments.files)


if __name__ == "__main__":
    main()
