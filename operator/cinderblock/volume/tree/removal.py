"""Removal of objects in a target that are not in the backup."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from cinderblock.volume.errors import target_error
from cinderblock.volume.tree.dirfd import DirectoryStack, mount_id, sorted_names
from cinderblock.volume.tree.sorted_names import SortedNames


def remove(directory: int, name: bytes, path: bytes) -> None:
    """Remove ``name`` and everything below it from the directory; ``path`` is only for messages.

    This follows no symbolic link and enters no other mount. Raises TargetError.
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
    """Add missing permission bits to a file or directory that this user owns, without following a symbolic link.

    Only processes without DAC_OVERRIDE need this. Raises OSError.
    """
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        if mode & needed != needed:
            os.chmod(b"/proc/self/fd/%d" % handle, mode | needed)
    finally:
        os.close(handle)


def enter_forced(stack: DirectoryStack, name: bytes) -> int:
    """Enter a directory to change it, and first change its mode if that is necessary. Raises OSError."""
    try:
        fd = stack.enter(name)
    except PermissionError:
        make_accessible(stack.fd, name, stat.S_IRWXU)
        return stack.enter(name)
    make_writable(fd)
    return fd


def make_writable(fd: int) -> None:
    """Make a directory that this user owns writable.

    For a directory of another user, only the later change shows whether it is writable. Raises OSError, EROFS on a
    read-only volume.
    """
    if not os.access(b".", os.W_OK | os.X_OK, dir_fd=fd, effective_ids=True):
        with suppress(PermissionError):
            os.chmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) | stat.S_IRWXU)


def _empty(directory: int, name: bytes, path: bytes) -> None:
    """Remove everything below a directory, deepest first. Only the names along one path are in memory."""
    stack = DirectoryStack(directory)
    parts = [path]
    try:
        mount = mount_id(directory)
        pending = [_enter_to_empty(stack, name, mount)]
        while pending:
            if not pending[-1]:
                pending.pop()
                if pending:
                    stack.leave()
                    os.rmdir(parts.pop(), dir_fd=stack.fd)
                continue
            child = pending[-1].pop()
            parts.append(child)
            if _unlink(stack.fd, child):
                parts.pop()
            else:
                pending.append(_enter_to_empty(stack, child, mount))
    except OSError as error:
        raise target_error(error, "remove", b"/".join(parts)) from error
    finally:
        stack.close()


def _enter_to_empty(stack: DirectoryStack, name: bytes, mount: int) -> SortedNames:
    """Enter a directory, and return its names. Raises OSError, EBUSY if another file system is mounted there."""
    if mount_id(enter_forced(stack, name)) != mount:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
    return sorted_names(stack.fd)


def _unlink(directory: int, name: bytes) -> bool:
    """Remove an object unless it is a directory, and return whether it was removed.

    For a directory Linux returns EISDIR, POSIX and some file systems EPERM. Raises OSError.
    """
    try:
        os.unlink(name, dir_fd=directory)
    except (IsADirectoryError, PermissionError):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            return False
        raise
    return True
