"""Copies of trees and devices by the volume room alone, without chunks and a store in between."""

from __future__ import annotations

import dataclasses

from cinderblock.format.entries import Chunk, Entry, EntryKind, Extent
from cinderblock.volume.content import SourceContent, TargetContent
from cinderblock.volume.metadata_support import MetadataSupport
from cinderblock.volume.ranges import holes, is_zero
from cinderblock.volume.tree.reader import TreeReader
from cinderblock.volume.tree.writer import TreeWriter

BLOCK = 256 << 10
NO_CHUNK = Chunk(0, 0, 0, 0, 0, 0, b"")


def find_extents(source: SourceContent) -> tuple[Extent, ...]:
    """Return the extents that a backup would keep: blocks that are neither holes nor zeros."""
    extents = []
    buffer = memoryview(bytearray(BLOCK))
    for offset, length in source.data_ranges():
        for position in range(offset, offset + length, BLOCK):
            count = source.read_into(position, buffer[: min(BLOCK, offset + length - position)])
            if not is_zero(buffer[:count]):
                extents.append(Extent(position, count, NO_CHUNK, 0, b""))
    return tuple(extents)


def copy_content(source: SourceContent, target: TargetContent, entry: Entry) -> int:
    """Make the target's content equal, and return the bytes that were written."""
    written = 0
    data, present = memoryview(bytearray(BLOCK)), memoryview(bytearray(BLOCK))
    for offset, length in holes(entry.extents, 0, entry.size):
        target.clear(offset, length)
    for extent in entry.extents:
        count = source.read_into(extent.offset, data[: extent.length])
        if (
            target.is_blank
            or target.read_into(extent.offset, present[:count]) != count
            or present[:count] != data[:count]
        ):
            target.write(extent.offset, data[:count])
            written += count
    return written


def copy_tree(source: str | bytes, target: str | bytes, support: MetadataSupport | None = None) -> CopyResult:
    """Make the tree at ``target`` equal to the one at ``source``."""
    written = 0
    with TreeReader(source) as reader, TreeWriter(target, support) as writer:
        for entry in reader.walk():
            if entry.kind is EntryKind.FILE:
                with reader.open_file(entry) as content:
                    whole = entry._replace(extents=find_extents(content))
                    file = writer.put(whole)
                    assert file is not None
                    with file:
                        written += copy_content(content, file, whole)
                        file.finish()
            else:
                assert writer.put(entry) is None
        writer.finish()
        return CopyResult(written, reader.skipped.summaries(), writer.losses.summaries())


@dataclasses.dataclass(frozen=True)
class CopyResult:
    """Result of a copy: bytes written, and sentences about skipped objects and losses."""

    written: int
    skipped: list[str]
    losses: list[str]
