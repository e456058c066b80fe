"""The SnapshotMetadata service: which blocks of a snapshot hold data, and which differ from an earlier snapshot.

Snapshots are whole image files, so allocated blocks are those outside holes, and changed ones are found by reading both
files. All blocks have the same size, including the last one, which may extend beyond the end of the volume.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.cluster.csi import messages
from tests.cluster.csi.extents import data_blocks
from tests.cluster.csi.images import Image, ImageStore
from tests.cluster.csi.refusals import RefusalError, require

BLOCK_SIZE = 64 << 10
BLOCKS_PER_MESSAGE = 1024


class SnapshotMetadata:
    """Answers from the images of one driver's snapshots."""

    def __init__(self, snapshots: ImageStore) -> None:
        self._snapshots = snapshots

    def get_metadata_allocated(self, request: Any) -> Iterator[Any]:
        require(request, "snapshot_id")
        snapshot = self._snapshots.get(request.snapshot_id)
        _check_offset(request.starting_offset, snapshot)
        with _open(snapshot) as descriptor:
            blocks = sorted(data_blocks(descriptor, BLOCK_SIZE))
        yield from _answers(messages.GetMetadataAllocatedResponse, request, snapshot, blocks)

    def get_metadata_delta(self, request: Any) -> Iterator[Any]:
        require(request, "base_snapshot_id", "target_snapshot_id")
        base = self._snapshots.get(request.base_snapshot_id)
        target = self._snapshots.get(request.target_snapshot_id)
        if base.source != target.source:
            raise RefusalError("INVALID_ARGUMENT", f"{base.name} and {target.name} are not of the same volume")
        _check_offset(request.starting_offset, target)
        with _open(base) as before, _open(target) as after:
            blocks = _changed(before, after, target.size)
            yield from _answers(messages.GetMetadataDeltaResponse, request, target, blocks)


@contextlib.contextmanager
def _open(image: Image) -> Iterator[int]:
    descriptor = os.open(image.path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _check_offset(offset: int, snapshot: Image) -> None:
    if not 0 <= offset <= snapshot.size:
        raise RefusalError("OUT_OF_RANGE", f"starting_offset {offset} is not within {snapshot.size} bytes")


def _changed(before: int, after: int, size: int) -> Iterator[int]:
    """Yield the blocks that differ. One that was zeroed is a hole now, so the holes of one file do not decide."""
    for block in sorted(data_blocks(before, BLOCK_SIZE) | data_blocks(after, BLOCK_SIZE)):
        offset = block * BLOCK_SIZE
        if offset < size and os.pread(before, BLOCK_SIZE, offset) != os.pread(after, BLOCK_SIZE, offset):
            yield block


def _answers(response: Callable[..., Any], request: Any, snapshot: Image, blocks: Iterable[int]) -> Iterator[Any]:
    """Yield the blocks that end after the starting offset in messages; at least one, which tells the capacity."""
    wanted = (block for block in blocks if (block + 1) * BLOCK_SIZE > request.starting_offset)
    limit = min(request.max_results or BLOCKS_PER_MESSAGE, BLOCKS_PER_MESSAGE)
    for number in itertools.count():
        part = list(itertools.islice(wanted, limit))
        if not part and number:
            return
        yield response(
            block_metadata_type=messages.FIXED_LENGTH,
            volume_capacity_bytes=snapshot.size,
            block_metadata=[
                messages.BlockMetadata(byte_offset=block * BLOCK_SIZE, size_bytes=BLOCK_SIZE) for block in part
            ],
        )
