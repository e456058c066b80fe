"""Size of a block device or of an image, and the test for both."""

from __future__ import annotations

import os
import stat

from cinderblock.volume.kernel.syscalls import device_size


def is_device_or_image(status: os.stat_result) -> bool:
    """Return whether an object is a block device or a regular file."""
    return stat.S_ISBLK(status.st_mode) or stat.S_ISREG(status.st_mode)


def size_in_bytes(fd: int, status: os.stat_result) -> int:
    """Return the bytes of an open block device or image. Raises OSError."""
    return device_size(fd) if stat.S_ISBLK(status.st_mode) else status.st_size
