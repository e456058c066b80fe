"""System calls that Python's ``os`` lacks. All of them release the interpreter's lock while they run."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02
_BLKGETSIZE64 = 0x80081272
_BLKZEROOUT = 0x127F
_BLKROGET = 0x125E
_BLKSSZGET = 0x1268

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_syncfs = _libc.syncfs
_syncfs.argtypes = (ctypes.c_int,)
_mallopt = getattr(_libc, "mallopt", None)


def punch_hole(fd: int, offset: int, length: int) -> bool:
    """Make a range of a file or block device read as zeros, and free its space without changing the size.

    Returns False if the file system or device does not support it. Raises OSError for other errors. (fallocate(2))
    """
    if _fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV):
        return False
    raise OSError(code, os.strerror(code))


def zero_out(fd: int, offset: int, length: int) -> bool:
    """Let the kernel write zeros to a range of a block device. Both ends must be multiples of its block size.

    Returns False if the device does not support it. Raises OSError for other errors. (BLKZEROOUT, linux/fs.h)
    """
    try:
        fcntl.ioctl(fd, _BLKZEROOUT, struct.pack("QQ", offset, length))
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY):
            return False
        raise
    return True


def device_size(fd: int) -> int:
    """Return the bytes of a block device. (BLKGETSIZE64, linux/fs.h)"""
    return int(struct.unpack("Q", fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)))[0])


def is_read_only(fd: int) -> bool:
    """Return whether a block device rejects writes, even if it is open for writing. (BLKROGET, linux/fs.h)"""
    return bool(struct.unpack("i", fcntl.ioctl(fd, _BLKROGET, bytes(4)))[0])


def device_block_size(fd: int) -> int:
    """Return the bytes of a logical block of a block device. (BLKSSZGET, linux/fs.h)"""
    return int(struct.unpack("i", fcntl.ioctl(fd, _BLKSSZGET, bytes(4)))[0])


def sync_file_system(fd: int) -> None:
    """Wait until the file system of ``fd`` is written to its storage. Raises OSError. (syncfs(2))"""
    if _syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def set_allocator(parameter: int, value: int) -> None:
    """Set a parameter of the C library's allocator, if it has any: glibc does, musl does not. (mallopt(3))"""
    if _mallopt is not None:
        _mallopt(parameter, value)
