"""Symbolic links, FIFOs and device nodes of a target."""

from __future__ import annotations

import os
import stat

from cinderblock.errors import IntegrityError
from cinderblock.format.entries import Entry, EntryKind
from cinderblock.volume.errors import format_path
from cinderblock.volume.metadata_support import Feature, MetadataLosses
from cinderblock.volume.tree.rows import TYPES

DEVICE_NODES = frozenset({EntryKind.CHARACTER_DEVICE, EntryKind.BLOCK_DEVICE})
_FEATURES = {
    EntryKind.SYMLINK: Feature.SYMLINKS,
    EntryKind.FIFO: Feature.FIFOS,
    **dict.fromkeys(DEVICE_NODES, Feature.DEVICE_NODES),
}


def is_same_node(directory: int, name: bytes, entry: Entry, status: os.stat_result) -> bool:
    """Return whether an existing object has the kind and identity of the entry. Raises OSError."""
    if stat.S_IFMT(status.st_mode) != TYPES.get(entry.kind):
        return False
    if entry.kind is EntryKind.SYMLINK:
        return os.readlink(name, dir_fd=directory) == entry.target
    return entry.kind not in DEVICE_NODES or status.st_rdev == entry.rdev


def make_node(directory: int, name: bytes, entry: Entry, losses: MetadataLosses) -> bool:
    """Make a symbolic link, FIFO or device node. Return False if the target rejects it and ``losses`` counts that.

    Raises OSError; TargetError for an error that ends the restore; IntegrityError for a kind that does not belong in a
    tree.
    """
    feature = _FEATURES.get(entry.kind)
    if feature is None:
        raise IntegrityError(f"the backup's tree contains {format_path(entry.path)} of kind {entry.kind.name}")
    try:
        if entry.kind is EntryKind.SYMLINK:
            os.symlink(entry.target, name, dir_fd=directory)
        else:
            os.mknod(name, TYPES[entry.kind] | 0o600, entry.rdev, dir_fd=directory)
    except OSError as error:
        losses.count_if_expected(feature, error, entry.path)
        return False
    return True
