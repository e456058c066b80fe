"""Digest of a tree: names, kinds, content, owners, modes, mtimes, attributes and targets of links.

    python tests/support/mover/tree_digest.py ROOT

It prints a SHA-256 and the number of entries, so that trees can be compared that no pod can mount together. It uses
only the standard library, and none of the tested code. It ignores sockets, and ``lost+found`` at the root.
"""

from __future__ import annotations

import hashlib
import os
import resource
import stat
import sys
from collections.abc import Iterator

BLOCK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def parts(root: str) -> Iterator[tuple[bool, bytes]]:
    """Yield all that a restore must bring back, and whether a new entry begins. Paths may be longer than PATH_MAX."""
    root_fd = os.open(root, _DIRECTORY)
    stack = [(root_fd, b"", iter(_names(root_fd, is_root=True)))]
    yield from described(root_fd, b".", b".")
    while stack:
        fd, path, names = stack[-1]
        name = next(names, None)
        if name is None:
            stack.pop()
            os.close(fd)
            continue
        yield from described(fd, name, path + name)
        if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
            child = os.open(name, _DIRECTORY, dir_fd=fd)
            stack.append((child, path + name + b"/", iter(_names(child))))


def _names(fd: int, *, is_root: bool = False) -> list[bytes]:
    names = sorted(map(os.fsencode, os.listdir(fd)))
    kept = [name for name in names if not stat.S_ISSOCK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)]
    return [name for name in kept if not (is_root and name == b"lost+found")]


def described(fd: int, name: bytes, path: bytes) -> Iterator[tuple[bool, bytes]]:
    """Yield everything about one entry of a directory."""
    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    yield True, repr((path, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)).encode()
    place = b"/proc/self/fd/%d/%s" % (fd, name)
    for attribute in sorted(os.listxattr(place, follow_symlinks=False)):
        if not attribute.startswith(("security.", "system.nfs4")):
            yield False, repr((attribute, os.getxattr(place, attribute, follow_symlinks=False))).encode()
    if stat.S_ISLNK(status.st_mode):
        yield False, os.readlink(name, dir_fd=fd)
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        yield False, repr(status.st_rdev).encode()
    if stat.S_ISREG(status.st_mode):
        yield False, repr(status.st_size).encode()
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)
        try:
            yield from ((False, block) for block in content(file, status.st_size))
        finally:
            os.close(file)


def content(file: int, size: int) -> Iterator[bytes]:
    """Yield the blocks of a file that are not zero, with their positions. Holes may be larger than the disk."""
    position = 0
    while position < size:
        try:
            position = os.lseek(file, position, os.SEEK_DATA) // BLOCK * BLOCK
        except OSError:
            return
        block = os.pread(file, BLOCK, position)
        if block.strip(b"\0"):
            yield repr(position).encode() + block
        position += BLOCK


def main(arguments: list[str]) -> int:
    """Print the digest of a tree. Each level of it needs a descriptor."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    digest, count = hashlib.sha256(), 0
    for is_entry, part in parts(arguments[0]):
        count += is_entry
        digest.update(len(part).to_bytes(8, "big") + part)
    print(f"{digest.hexdigest()} {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
