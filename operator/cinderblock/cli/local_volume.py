"""Directories, image files and devices of this machine as volumes."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import uuid
from typing import Final

from cinderblock.api.mover import VolumeMode
from cinderblock.errors import InvalidInput, SourceError

_NAMESPACE: Final = uuid.UUID("be515dce-e1c9-44b5-9037-23d5f99bb42b")
"""A random namespace for the ids of volumes outside a cluster (RFC 9562, section 5.5)."""


def volume_mode(path: str) -> VolumeMode:
    """Return Filesystem for a directory, Block for an image file or a device. Raises InvalidInput for others."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise InvalidInput(f"Cannot back up {path}: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        return VolumeMode.FILESYSTEM
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return VolumeMode.BLOCK
    raise InvalidInput(f"Cannot back up {path}: it is not a directory, an image file or a block device")


def volume_bytes(path: str, mode: VolumeMode) -> int:
    """Return the size of an image file or device; 0 for a directory. Raises SourceError."""
    if mode is VolumeMode.FILESYSTEM:
        return 0
    try:
        with open(path, "rb") as file:
            return file.seek(0, os.SEEK_END)
    except OSError as error:
        raise SourceError(f"Cannot read {path}: {error.strerror}") from error


def is_read_only(path: str) -> bool:
    """Return whether ``path`` is on a read-only mount. Raises InvalidInput."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError as error:
        raise InvalidInput(f"Cannot back up {path}: {error.strerror}") from error


def volume_name(path: str) -> str:
    """Return a path as text. Bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode(errors="backslashreplace")


def default_volume_id(path: str, host: str | None = None) -> str:
    """Return an id for a path, which is stable for the same real path on the same host.

    Args:
        path: path of the volume.
        host: name of the host; None for this one.
    """
    name = f"{host or socket.gethostname()}:".encode() + os.fsencode(os.path.realpath(path))
    # Like uuid.uuid5, which accepts only UTF-8.
    digest = hashlib.sha1(_NAMESPACE.bytes + name, usedforsecurity=False).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))
