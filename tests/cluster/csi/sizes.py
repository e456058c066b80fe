"""Choose the size of a volume when a caller gives a range."""

from typing import Any

from tests.cluster.csi.refusals import RefusalError

GRANULARITY = 4096
"""A whole number of sectors and of file system blocks, so that nothing of the last one is cut off."""
DEFAULT = 64 << 20


def choose(capacity_range: Any, source_size: int) -> int:
    """Return the smallest size in the range that can hold the source, or refuse the call."""
    wanted = capacity_range.required_bytes or max(source_size, min(DEFAULT, capacity_range.limit_bytes or DEFAULT))
    size: int = -(-wanted // GRANULARITY) * GRANULARITY
    if size < source_size:
        raise RefusalError("OUT_OF_RANGE", f"the source has {source_size} bytes, more than the {size} of the request")
    if not fits(size, capacity_range):
        raise RefusalError("OUT_OF_RANGE", f"the limit is below {size} bytes")
    return size


def fits(size: int, capacity_range: Any) -> bool:
    """Tell whether the size is in the range."""
    return bool(capacity_range.required_bytes <= size <= (capacity_range.limit_bytes or size))
