"""Copy an image as of one instant while others write to it, like the snapshot of a disk.

Nothing above the image is frozen or flushed. The copy holds exactly the writes that had reached the device by then: the
loop device puts them into the page cache of the image. Reading the image piece by piece would mix several instants.

This kernel has no device mapper that could hold writes back, and not every file system can share blocks. But one direct
read holds the lock of the file until it has ended, and writers need that lock for themselves alone. The read also
brings the page cache to the disk first, under the same lock. So one read call is one instant, and writers wait for it.
(Linux: ext4_dio_read_iter and ext4_buffered_write_iter in fs/ext4/file.c; XFS and btrfs lock in the same way.)
"""

import contextlib
import mmap
import os
from collections.abc import Iterator

from tests.cluster.csi.refusals import RefusalError

LARGEST = 0x7FFFF000
"""Bytes that one call can read (Linux: MAX_RW_COUNT in include/linux/fs.h)."""
ALIGNMENT = 4096
BLOCK = 4096
"""Bytes of the copy that are either written or left as a hole."""
PIECE = 256 * BLOCK
_EMPTY_BLOCK = bytes(BLOCK)
_EMPTY_PIECE = bytes(PIECE)


def copy(original: str, target: str) -> None:
    """Write what the original holds at one instant to a new file, with holes for zeros.

    The whole image is in memory for a moment. Raises RefusalError if one call cannot read it.
    """
    size = os.stat(original).st_size
    if size > LARGEST:
        raise RefusalError("FAILED_PRECONDITION", f"an image of {size} bytes cannot be read in one call")
    with _content(original, size) as content, open(target, "wb", buffering=0) as file:
        for offset in _blocks_with_data(content):
            os.pwrite(file.fileno(), content[offset : offset + BLOCK], offset)
        file.truncate(size)


@contextlib.contextmanager
def _content(original: str, size: int) -> Iterator[memoryview]:
    room = max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)
    descriptor = os.open(original, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, room) as memory:
            count = os.preadv(descriptor, [memory], 0)
            if count != size:
                raise RefusalError("ABORTED", f"{count} of {size} bytes were read in one call")
            with memoryview(memory) as whole, whole[:size] as content:
                yield content
    finally:
        os.close(descriptor)


def _blocks_with_data(content: memoryview) -> Iterator[int]:
    """Yield where blocks begin that are not zero."""
    for start in range(0, len(content), PIECE):
        piece = content[start : start + PIECE]
        if piece == _EMPTY_PIECE[: len(piece)]:
            continue
        for offset in range(start, start + len(piece), BLOCK):
            block = content[offset : offset + BLOCK]
            if block != _EMPTY_BLOCK[: len(block)]:
                yield offset
