"""Descriptors of directories, so that no path is ever passed to the kernel as a whole.

A whole path could lead out of the volume through a symbolic link, or be longer than PATH_MAX (4096 bytes). Here each
part is opened relative to the part before it, and never through a symbolic link.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

from cinderblock.volume.tree.sorted_names import SortedNames

MAX_OPEN_DIRECTORIES = 64
"""Most descriptors that one stack keeps open. Deeper trees are rare, and reopening an ancestor costs three system
calls. The usual limit of a process is 1024."""

_OPEN_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class _Level:
    """One directory of a stack. While it is closed, ``fd`` is -1 and ``identity`` serves to recognize it."""

    name: bytes
    fd: int
    identity: tuple[int, int] = (0, 0)


class DirectoryStack:
    """Open descriptors of a directory below a root and of its nearest ancestors, at most MAX_OPEN_DIRECTORIES.

    Methods raise OSError; ESTALE if an ancestor was moved meanwhile.
    """

    def __init__(self, root_fd: int) -> None:
        self._levels = [_Level(b"", os.dup(root_fd))]

    @property
    def fd(self) -> int:
        """Descriptor of the current directory. The stack closes it."""
        return self._levels[-1].fd

    @property
    def depth(self) -> int:
        """Number of levels from the root down to the current directory."""
        return len(self._levels) - 1

    def enter(self, name: bytes) -> int:
        """Enter a subdirectory of the current directory, and return its descriptor."""
        fd = os.open(name, _OPEN_FLAGS, dir_fd=self.fd)
        self._levels.append(_Level(name, fd))
        self._close_oldest()
        return fd

    def leave(self) -> None:
        """Return to the parent of the current directory."""
        parent = self._levels[-2]
        if parent.fd < 0:
            parent.fd = self._reopen(parent)
        os.close(self._levels.pop().fd)

    def go_to(self, parts: Sequence[bytes]) -> int:
        """Enter the directory at this path below the root, and return its descriptor."""
        common = 0
        for level, part in zip(self._levels[1:], parts, strict=False):
            if level.name != part:
                break
            common += 1
        while self.depth > common:
            self.leave()
        for part in parts[common:]:
            self.enter(part)
        return self.fd

    def close(self) -> None:
        """Close all descriptors. May be repeated."""
        while self._levels:
            level = self._levels.pop()
            if level.fd >= 0:
                os.close(level.fd)

    def _close_oldest(self) -> None:
        """Close the ancestor MAX_OPEN_DIRECTORIES levels up, unless it is the root."""
        index = len(self._levels) - MAX_OPEN_DIRECTORIES
        if index > 0 and self._levels[index].fd >= 0:
            level = self._levels[index]
            status = os.fstat(level.fd)
            level.identity = (status.st_dev, status.st_ino)
            os.close(level.fd)
            level.fd = -1

    def _reopen(self, level: _Level) -> int:
        """Open the parent of the current directory again, and check that it is the same directory as before."""
        fd = os.open(b"..", _OPEN_FLAGS, dir_fd=self.fd)
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != level.identity:
            os.close(fd)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return fd


def open_root(path: str | bytes) -> int:
    """Open the root of a tree. Only here symbolic links are followed. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def parts_of(path: bytes) -> list[bytes]:
    """Return the parts of an entry's path; the root has none."""
    return path.split(b"/") if path else []


def proc_path(directory: int, name: bytes) -> bytes:
    """Return a path for calls without ``dir_fd``. It begins at the descriptor, so the kernel looks up only ``name``."""
    return b"/proc/self/fd/%d/%s" % (directory, name)


def sorted_names(fd: int) -> SortedNames:
    """Return the names in a directory in ascending order of bytes. Raises OSError.

    Listing through /proc returns bytes directly. During the call, a million names of 15 bytes take 56 MB.
    """
    return SortedNames(os.listdir(b"/proc/self/fd/%d" % fd))


def has_mounts_below(root_fd: int) -> bool:
    """Return whether something is, or may be, mounted below a directory. (proc(5), mountinfo)

    If not, a walk need not check the mount of each directory, which costs three system calls each.
    """
    try:
        root = os.readlink(b"/proc/self/fd/%d" % root_fd).rstrip(b"/") + b"/"
        with open("/proc/self/mountinfo", "rb") as lines:
            points = [line.split(b" ", 5)[4] for line in lines]
    except (OSError, IndexError):
        return True
    return any(point.startswith(_escaped(root)) for point in points)


def _escaped(path: bytes) -> bytes:
    """Escape a path as in mountinfo: blanks, tabs, newlines and backslashes in octal."""
    for byte in b"\\ \t\n":
        path = path.replace(bytes([byte]), b"\\%03o" % byte)
    return path


def mount_id(fd: int) -> int:
    """Return the number of the mount of a file, which distinguishes bind mounts of one file system. (proc(5), fdinfo)

    If the kernel's fdinfo lacks it (gVisor), return the number of the file system. Costs 2 microseconds.
    """
    info = os.open(b"/proc/self/fdinfo/%d" % fd, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(info, 4096)
    finally:
        os.close(info)
    for line in text.splitlines():
        if line.startswith(b"mnt_id:"):
            return int(line[7:])
    return os.fstat(fd).st_dev
