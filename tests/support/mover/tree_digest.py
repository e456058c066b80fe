"""Digest of a tree: names, kinds, content, owners, modes, mtimes, attributes and targets of links.

    python tests/support/mover/tree_digest.py ROOT

It prints a SHA-256 and the number of entries, so that trees can be compared that no pod can mount together. It uses
only the standard library, and none of the tested code. It ignores sockets, and ``lost+found`` at the root.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterator

BLOCK = 1 << 20


def entries(root: str) -> Iterator[tuple[str, str]]:
    """Yield the path below the root, and the path, of each entry, in order."""
    yield ".", root
    stack = [(".", root)]
    while stack:
        below, directory = stack.pop()
        for name in sorted(os.listdir(directory), key=os.fsencode):
            path, shown = os.path.join(directory, name), os.path.join(below, name)
            status = os.lstat(path)
            if stat.S_ISSOCK(status.st_mode) or shown == "./lost+found":
                continue
            yield shown, path
            if stat.S_ISDIR(status.st_mode):
                stack.append((shown, path))


def described(shown: str, path: str) -> Iterator[bytes]:
    """Yield everything about one entry that a restore must bring back."""
    status = os.lstat(path)
    facts = (shown, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
    yield repr(facts).encode("utf-8", "backslashreplace")
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        if not name.startswith(("security.", "system.nfs4")):
            yield repr((name, os.getxattr(path, name, follow_symlinks=False))).encode()
    if stat.S_ISLNK(status.st_mode):
        yield os.fsencode(os.readlink(path))
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        yield repr(status.st_rdev).encode()
    if stat.S_ISREG(status.st_mode):
        yield repr(status.st_size).encode()
        yield from content(path, status.st_size)


def content(path: str, size: int) -> Iterator[bytes]:
    """Yield the blocks of a file that are not zero, with their positions. Holes may be larger than the disk."""
    with open(path, "rb") as file:
        position = 0
        while position < size:
            try:
                position = os.lseek(file.fileno(), position, os.SEEK_DATA) // BLOCK * BLOCK
            except OSError:
                return
            block = os.pread(file.fileno(), BLOCK, position)
            if block.strip(b"\0"):
                yield repr(position).encode() + block
            position += BLOCK


def main(arguments: list[str]) -> int:
    """Print the digest of a tree."""
    digest, count = hashlib.sha256(), 0
    for shown, path in entries(arguments[0]):
        count += 1
        for part in described(shown, path):
            digest.update(len(part).to_bytes(8, "big") + part)
    print(f"{digest.hexdigest()} {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
