"""Directories, images and devices of this machine, as volumes."""

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
"""Drawn once, for ids of volumes that are backed up by hand (RFC 9562, section 5.5)."""


def volume_mode(path: str) -> VolumeMode:
    """A directory is a file system, an image or a block device a device. Raises InvalidInput for anything else."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise InvalidInput(f"{path} cannot be backed up: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        return VolumeMode.FILESYSTEM
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return VolumeMode.BLOCK
    raise InvalidInput(f"{path} is neither a directory, nor an image, nor a block device")


def volume_bytes(path: str, mode: VolumeMode) -> int:
    """Bytes of an image or device; 0 for a directory, of which nobody knows. Raises SourceError."""
    if mode is VolumeMode.FILESYSTEM:
        return 0
    try:
        with open(path, "rb") as file:
            return file.seek(0, os.SEEK_END)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def is_read_only(path: str) -> bool:
    """Return whether ``path`` lies on a read-only mount. Raises InvalidInput."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be backed up: {error.strerror}") from error


def volume_name(path: str) -> str:
    """A path as text: what of it is not UTF-8 is spelt out."""
    return os.fsencode(path).decode(errors="backslashreplace")


def default_volume_id(path: str, host: str | None = None) -> str:
    """The id of a volume that is given none: the same for the same path on the same host, whatever leads to it.

    Args:
        path: of the volume.
        host: name of the host; None: this one.
    """
    name = f"{host or socket.gethostname()}:".encode() + os.fsencode(os.path.realpath(path))
    # As uuid.uuid5 does, which takes no path that is not UTF-8.
    digest = hashlib.sha1(_NAMESPACE.bytes + name, usedforsecurity=False).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))
