"""Copies of inodes, for targets that do not support hard links."""

from __future__ import annotations

import os
import stat
from typing import Final

from cinderblock.format.entries import Entry, EntryKind
from cinderblock.volume.kernel.file_io import data_ranges
from cinderblock.volume.metadata_support import MetadataLosses
from cinderblock.volume.tree import metadata
from cinderblock.volume.tree.dirfd import proc_path
from cinderblock.volume.tree.rows import StatFields, make_entry
from cinderblock.volume.tree.special_files import make_node
from cinderblock.volume.tree.target_file import make_file

_SENDFILE_BYTES: Final = 1 << 30
_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def duplicate(holder: tuple[int, bytes], directory: int, name: bytes, path: bytes, losses: MetadataLosses) -> None:
    """Create ``name`` in ``directory`` as a copy of an inode that the restore has finished.

    Args:
        holder: descriptor of the inode's directory, and its name there.
        directory: descriptor of the directory of the new name.
        name: the new name, which must not exist.
        path: the path of the new name below the volume's root, for messages.
        losses: counts losses.

        Raises OSError; TargetError for a loss that ends the restore.
    """
    status = os.stat(holder[1], dir_fd=holder[0], follow_symlinks=False)
    target = os.readlink(holder[1], dir_fd=holder[0]) if stat.S_ISLNK(status.st_mode) else b""
    found = metadata.read_xattrs(proc_path(*holder))
    entry = make_entry(path, StatFields.from_stat(status), found, target, status.st_rdev)
    if entry.kind is EntryKind.FILE:
        _duplicate_content(holder, directory, entry, name)
    elif not make_node(directory, name, entry, losses):
        return
    metadata.apply_metadata(proc_path(directory, name), entry, is_new=True, losses=losses)


def _duplicate_content(holder: tuple[int, bytes], directory: int, entry: Entry, name: bytes) -> None:
    """Copy data within the file system, without its holes."""
    source = os.open(holder[1], _READ_FLAGS, dir_fd=holder[0])
    try:
        copy = make_file(directory, name)
        try:
            os.ftruncate(copy, entry.size)
            for offset, length in data_ranges(source, 0, entry.size):
                _copy_range(source, copy, offset, offset + length)
        finally:
            os.close(copy)
    finally:
        os.close(source)


def _copy_range(source: int, copy: int, offset: int, end: int) -> None:
    os.lseek(copy, offset, os.SEEK_SET)
    while offset < end:
        sent = os.sendfile(copy, source, offset, min(_SENDFILE_BYTES, end - offset))
        if not sent:
            return
        offset += sent
