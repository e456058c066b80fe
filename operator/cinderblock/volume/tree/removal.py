"""Removing what is in a target and not in the backup."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from cinderblock.volume.errors import target_error
from cinderblock.volume.tree.dirfd import DirectoryStack, mount_id, sorted_names
from cinderblock.volume.tree.sorted_names import SortedNames


def remove(directory: int, name: bytes, path: bytes) -> None:
    """Remove ``name`` from the directory, with all that is below it; ``path`` is for messages only.

    Neither follows symbolic links nor goes into another mount. Raises TargetError.
    """
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=directory)
            return
    except OSError as error:
        raise target_error(error, "remove", path) from error
    _empty(directory, name, path)
    try:
        os.rmdir(name, dir_fd=directory)
    except OSError as error:
        raise target_error(error, "remove", path) from error


def make_accessible(directory: int, name: bytes, needed: int) -> None:
    """Add permission bits to a file or directory of our own that lacks them; a symbolic link is not followed.

    For a process that modes bind. Raises OSError.
    """
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        if mode & needed != needed:
            os.chmod(b"/proc/self/fd/%d" % handle, mode | needed)
    finally:
        os.close(handle)


def enter_forced(chain: DirectoryStack, name: bytes) -> int:
    """Go into a directory to change it; if its mode is in the way, change that first. Raises OSError."""
    try:
        fd = chain.enter(name)
    except PermissionError:
        make_accessible(chain.fd, name, stat.S_IRWXU)
        return chain.enter(name)
    make_writable(fd)
    return fd


def make_writable(fd: int) -> None:
    """Make sure that names can be made and removed in a directory of our own.

    Of a directory of somebody else only the attempt will tell. Raises OSError, EROFS of a read-only volume.
    """
    if not os.access(b".", os.W_OK | os.X_OK, dir_fd=fd, effective_ids=True):
        with suppress(PermissionError):
            os.chmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) | stat.S_IRWXU)


def _empty(directory: int, name: bytes, path: bytes) -> None:
    """Remove everything below a directory, deepest first, with the names of one path's directories in memory."""
    chain = DirectoryStack(directory)
    parts = [path]
    try:
        mount = mount_id(directory)
        pending = [_enter_to_empty(chain, name, mount)]
        while pending:
            if not pending[-1]:
                pending.pop()
                if pending:
                    chain.leave()
                    os.rmdir(parts.pop(), dir_fd=chain.fd)
                continue
            child = pending[-1].pop()
            parts.append(child)
            if _unlink(chain.fd, child):
                parts.pop()
            else:
                pending.append(_enter_to_empty(chain, child, mount))
    except OSError as error:
        raise target_error(error, "remove", b"/".join(parts)) from error
    finally:
        chain.close()


def _enter_to_empty(chain: DirectoryStack, name: bytes, mount: int) -> SortedNames:
    """Go into a directory and return its names; EBUSY if something else is mounted there."""
    if mount_id(enter_forced(chain, name)) != mount:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
    return sorted_names(chain.fd)


def _unlink(directory: int, name: bytes) -> bool:
    """Remove what is no directory; False if it is one (Linux answers EISDIR, POSIX and some file systems EPERM)."""
    try:
        os.unlink(name, dir_fd=directory)
    except (IsADirectoryError, PermissionError):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            return False
        raise
    return True
