"""Quiesce a volume while its image is copied, so that the copy is of one instant.

That is so for file systems, which are frozen. A Block volume is only flushed: where blocks cannot be shared, the copy
may hold some of what is written meanwhile.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

from tests.cluster.csi import commands, loops, mounts

FIFREEZE = 0xC0045877
FITHAW = 0xC0045878


def copy(original: str, target: str) -> None:
    """Copy an image that holds still, sharing its blocks where the file system can, and its holes everywhere."""
    with _quiesced(original):
        commands.run("cp", "--reflink=auto", "--sparse=always", original, target)


@contextlib.contextmanager
def _quiesced(image: str) -> Iterator[None]:
    """Freeze the file systems on the image, flush all caches above it, and always thaw at the end."""
    with contextlib.ExitStack() as frozen:
        for loop in loops.attached(image):
            for target in _file_systems(loop):
                frozen.enter_context(_frozen(target))
        flush(image)
        yield


def thaw(image: str) -> None:
    """Undo a freeze that a driver left when it was killed during a copy, if there is one."""
    for loop in loops.attached(image):
        for target in _file_systems(loop):
            with _opened(target) as descriptor, contextlib.suppress(OSError):
                fcntl.ioctl(descriptor, FITHAW, 0)


def flush(image: str) -> None:
    """Flush data from the image's loop devices into the image."""
    for path in [*(loop.path for loop in loops.attached(image)), image]:
        with _opened(path) as descriptor:
            os.fsync(descriptor)


def _file_systems(loop: loops.Loop) -> list[str]:
    """Return one place where the device's file system is mounted, if it is: freezing one freezes all."""
    device = loop.device
    return [mount.target for mount in mounts.table() if mount.device == device and mount.root == "/"][:1]


@contextlib.contextmanager
def _frozen(target: str) -> Iterator[None]:
    with _opened(target) as descriptor:
        is_ours = _freeze(descriptor)
        try:
            yield
        finally:
            if is_ours:
                fcntl.ioctl(descriptor, FITHAW, 0)


def _freeze(descriptor: int) -> bool:
    """Freeze the file system. Return False if it is already frozen, in which case the other party must thaw it."""
    try:
        fcntl.ioctl(descriptor, FIFREEZE, 0)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
