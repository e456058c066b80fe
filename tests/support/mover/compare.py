"""Comparison of two trees: names, kinds, content, owners, modes, mtimes, attributes, hard links.

    python tests/support/mover/compare.py A B [--holes] [--ignore-owners] [--ignore-mtimes]

It prints one line per difference, and exits with 1 if there is one. It uses only the standard library, and none of the
tested code. It ignores sockets, and ``lost+found`` at the root.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

BLOCK = 1 << 20
UNCOMPARED_ATTRIBUTES = (
    "security.selinux",
    "security.ima",
    "security.evm",
    "system.nfs4_acl",
    "trusted.SGI_ACL_FILE",
    "trusted.SGI_ACL_DEFAULT",
)
"""Attributes that belong to the machine, not to the data. XFS shows ACLs twice."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass
class Comparison:
    """Options and result of a comparison.

    Attributes:
        holes: whether it is a difference if the second tree takes more space than the first.
        owners, mtimes: whether to compare these.
        differences: one readable line for each.
    """

    holes: bool = False
    owners: bool = True
    mtimes: bool = True
    differences: list[str] = field(default_factory=list)
    _links: tuple[dict[tuple[int, int], str], dict[tuple[int, int], str]] = field(default_factory=lambda: ({}, {}))

    def compare(self, left: str | bytes, right: str | bytes) -> list[str]:
        """Compare two directories recursively, with a loop, because trees may be thousands of levels deep."""
        _raise_descriptor_limit()
        left_fd, right_fd = os.open(left, _DIRECTORY), os.open(right, _DIRECTORY)
        self._compare_status(".", os.fstat(left_fd), os.fstat(right_fd))
        self._compare_attributes(".", b"/proc/self/fd/%d" % left_fd, b"/proc/self/fd/%d" % right_fd, follow=True)
        stack = [(left_fd, right_fd, b"", self._common_names(b"", left_fd, right_fd))]
        while stack:
            left_fd, right_fd, path, names = stack[-1]
            name = next(names, None)
            if name is None:
                stack.pop()
                os.close(left_fd)
                os.close(right_fd)
            elif self._compare_name(path + name, name, left_fd, right_fd):
                children = os.open(name, _DIRECTORY, dir_fd=left_fd), os.open(name, _DIRECTORY, dir_fd=right_fd)
                below = path + name + b"/"
                stack.append((*children, below, self._common_names(below, *children)))
        return self.differences

    def _common_names(self, path: bytes, left_fd: int, right_fd: int) -> Iterator[bytes]:
        left, right = _names(left_fd, path), _names(right_fd, path)
        for name in sorted(left ^ right):
            self._differ(path + name, "only in the " + ("first" if name in left else "second"))
        return iter(sorted(left & right))

    def _compare_name(self, path: bytes, name: bytes, left_fd: int, right_fd: int) -> bool:
        """Compare two objects with the same name, and return whether both are directories."""
        left = os.stat(name, dir_fd=left_fd, follow_symlinks=False)
        right = os.stat(name, dir_fd=right_fd, follow_symlinks=False)
        shown = os.fsdecode(path)
        if stat.S_IFMT(left.st_mode) != stat.S_IFMT(right.st_mode):
            self._differ(path, f"kind {stat.filemode(left.st_mode)} and {stat.filemode(right.st_mode)}")
            return False
        self._compare_status(shown, left, right)
        self._compare_links(shown, left, right)
        self._compare_attributes(
            shown, b"/proc/self/fd/%d/%s" % (left_fd, name), b"/proc/self/fd/%d/%s" % (right_fd, name)
        )
        if stat.S_ISLNK(left.st_mode):
            targets = os.readlink(name, dir_fd=left_fd), os.readlink(name, dir_fd=right_fd)
            if targets[0] != targets[1]:
                self._differ(path, f"points to {targets[0]!r} and {targets[1]!r}")
        if stat.S_ISREG(left.st_mode) and left.st_size == right.st_size:
            self._compare_content(path, name, left_fd, right_fd)
        return stat.S_ISDIR(left.st_mode)

    def _compare_status(self, path: str, left: os.stat_result, right: os.stat_result) -> None:
        pairs = [("mode", oct(stat.S_IMODE(left.st_mode)), oct(stat.S_IMODE(right.st_mode)))]
        if self.owners:
            pairs.append(("owner", f"{left.st_uid}:{left.st_gid}", f"{right.st_uid}:{right.st_gid}"))
        if self.mtimes:
            pairs.append(("mtime", str(left.st_mtime_ns), str(right.st_mtime_ns)))
        if stat.S_ISREG(left.st_mode):
            pairs.append(("size", str(left.st_size), str(right.st_size)))
            if self.holes and right.st_blocks > left.st_blocks + 16:
                pairs.append(("blocks", str(left.st_blocks), str(right.st_blocks)))
        if stat.S_ISCHR(left.st_mode) or stat.S_ISBLK(left.st_mode):
            pairs.append(("device number", str(left.st_rdev), str(right.st_rdev)))
        for what, one, other in pairs:
            if one != other:
                self._differ(os.fsencode(path), f"{what} {one} and {other}")

    def _compare_links(self, path: str, left: os.stat_result, right: os.stat_result) -> None:
        """Check that names of one inode in one tree are names of one inode in the other."""
        if stat.S_ISDIR(left.st_mode):
            return
        first_left = self._links[0].setdefault((left.st_dev, left.st_ino), path)
        first_right = self._links[1].setdefault((right.st_dev, right.st_ino), path)
        if first_left != first_right:
            self._differ(os.fsencode(path), f"hard link to {first_left!r} and to {first_right!r}")

    def _compare_attributes(self, path: str, left: bytes, right: bytes, *, follow: bool = False) -> None:
        one, other = _attributes(left, follow), _attributes(right, follow)
        for name in sorted(one.keys() | other.keys()):
            if one.get(name) != other.get(name):
                self._differ(os.fsencode(path), f"attribute {name} {one.get(name)!r} and {other.get(name)!r}")

    def _compare_content(self, path: bytes, name: bytes, left_fd: int, right_fd: int) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW
        left, right = os.open(name, flags, dir_fd=left_fd), os.open(name, flags, dir_fd=right_fd)
        try:
            position = min(_next_data(left, 0), _next_data(right, 0))
            size = os.fstat(left).st_size
            while position < size:
                one, other = os.pread(left, BLOCK, position), os.pread(right, BLOCK, position)
                if one != other:
                    where = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
                    self._differ(path, f"content differs at byte {position + where}")
                    return
                position += len(one) or BLOCK
                position = min(_next_data(left, position), _next_data(right, position))
        finally:
            os.close(left)
            os.close(right)

    def _differ(self, path: bytes, what: str) -> None:
        shown = repr(os.fsdecode(path))
        if len(shown) > 200:
            shown = f"{shown[:98]}[...]{shown[-98:]}"
        self.differences.append(f"{shown}: {what}")


def compare_trees(
    left: str | bytes, right: str | bytes, *, holes: bool = False, owners: bool = True, mtimes: bool = True
) -> list[str]:
    """Return the differences between two trees, one readable line each."""
    return Comparison(holes=holes, owners=owners, mtimes=mtimes).compare(left, right)


def _names(fd: int, path: bytes) -> set[bytes]:
    names = set()
    for name in map(os.fsencode, os.listdir(fd)):
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if not stat.S_ISSOCK(status.st_mode) and not (path == b"" and name == b"lost+found"):
            names.add(name)
    return names


def _attributes(path: bytes, follow: bool) -> dict[str, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=follow)
    except OSError:
        return {}
    return {n: os.getxattr(path, n, follow_symlinks=follow) for n in names if n not in UNCOMPARED_ATTRIBUTES}


def _next_data(fd: int, position: int) -> int:
    """Return the next offset from ``position`` with possible data; the end of the file if there is none."""
    end = os.fstat(fd).st_size
    if position >= end:
        return end
    try:
        return os.lseek(fd, position, os.SEEK_DATA)
    except OSError as error:
        return end if error.errno == 6 else position


def _raise_descriptor_limit() -> None:
    """Raise the limit of open files: the comparison needs two descriptors per level of the tree."""
    with contextlib.suppress(ValueError, OSError):
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    """Compare two trees from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("left")
    parser.add_argument("right")
    parser.add_argument("--holes", action="store_true", help="the second may not take more space than the first")
    parser.add_argument("--ignore-owners", action="store_true")
    parser.add_argument("--ignore-mtimes", action="store_true")
    arguments = parser.parse_args()
    differences = compare_trees(
        arguments.left,
        arguments.right,
        holes=arguments.holes,
        owners=not arguments.ignore_owners,
        mtimes=not arguments.ignore_mtimes,
    )
    for line in differences:
        print(line)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
