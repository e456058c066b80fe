"""The model of a volume: entries, and the extents that locate the bytes of a file.

One model serves both kinds of volume: a block device is one entry of kind DEVICE with an empty path. All types are
named tuples. A tree has millions of them, and a named tuple is made in 0.4 microseconds instead of the 2.6 of a
dataclass. ``entry._replace(size=...)`` returns a changed copy.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class EntryKind(IntEnum):
    """The kind of an entry. The numbers are part of the format."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    HARDLINK = 4
    FIFO = 5
    CHARACTER_DEVICE = 6
    BLOCK_DEVICE = 7
    DEVICE = 8


class ByteRange(NamedTuple):
    """``length`` bytes from ``offset`` of a file or device."""

    offset: int
    length: int


class Chunk(NamedTuple):
    """A piece of plaintext and its place in a pack.

    Attributes:
        pack: number of the pack in the manifest's table of packs.
        number: number of the chunk in that pack.
        offset: start of its frame in the pack, in bytes.
        stored: bytes of the frame, including the tag.
        size: bytes of the plaintext.
        encoding: how the plaintext was encoded before it was sealed (`compression.Encoding`).
        digest: BLAKE3 of the plaintext, 32 bytes; it identifies the chunk.
    """

    pack: int
    number: int
    offset: int
    stored: int
    size: int
    encoding: int
    digest: bytes


class Extent(NamedTuple):
    """A run of bytes of a file that lies in one chunk. Bytes outside all extents are holes and read as zeros.

    Attributes:
        offset: start of the run in the file, in bytes.
        length: bytes of the run, at least 1.
        chunk: the chunk that holds the bytes.
        chunk_offset: start of the run in the chunk's plaintext, in bytes. Solid chunks hold several files.
        digest: BLAKE3 of the run, 32 bytes. If the run is the whole chunk, this is the digest of the chunk.
    """

    offset: int
    length: int
    chunk: Chunk
    chunk_offset: int
    digest: bytes


class Entry(NamedTuple):
    """One name in a tree, with everything that a restore recreates.

    Attributes:
        path: relative to the volume's root, parts separated by ``b"/"``; empty for the root itself.
        kind: file, directory, or another kind of object.
        mode: permission bits with setuid, setgid and sticky (``st_mode & 0o7777``).
        uid, gid: numeric owner and group.
        mtime_ns, ctime_ns: nanoseconds since 1970. ctime serves only to detect changes.
        inode: of the source; serves only to detect changes.
        size: bytes of a FILE or DEVICE.
        target: the text of a SYMLINK, or for a HARDLINK the path of the entry that holds the content.
        rdev: device number of a device node (``st_rdev``).
        xattrs: extended attributes sorted by name, including POSIX ACLs and file capabilities.
        extents: of a FILE or DEVICE, in order of offset, not overlapping. An entry with very many extents comes in
            several consecutive parts. The parts differ only in their extents, which continue from part to part.
    """

    path: bytes
    kind: EntryKind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0
    size: int = 0
    target: bytes = b""
    rdev: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    extents: tuple[Extent, ...] = ()


def order_key(path: bytes) -> bytes:
    """Return the key that sorts entries by the parts of their paths, so that a directory precedes its contents.

    No name contains NUL, and NUL is the smallest byte. So this gives the order of ``path.split(b"/")``, faster.
    """
    return path.replace(b"/", b"\0")
