"""Find the data of a sparse file, in blocks of one size."""

import errno
import os
from collections.abc import Iterator


def data_ranges(descriptor: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each range that is not a hole."""
    end = 0
    while True:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def data_blocks(descriptor: int, block_size: int) -> set[int]:
    """Return the numbers of the blocks that hold any data."""
    blocks: set[int] = set()
    for start, end in data_ranges(descriptor):
        blocks.update(range(start // block_size, -(-end // block_size)))
    return blocks
