"""Translation of the kernel's errors into messages that a person can act on."""

from __future__ import annotations

import errno
import os

from cinderblock.errors import SourceChanging, SourceError, TargetError
from cinderblock.reasons import Reason

VANISHED = Reason.SOURCE_VANISHED
"""Reason of the SourceChanging for a path that was removed or replaced. A backup may leave it out."""

_BEST_EFFORT_ADVICE = "use fidelity BestEffort (--best-effort)"
_DEVICE_LOST_MESSAGE = (
    "the volume is gone: check its storage backend, its attachment and the node's kernel log, then try again"
)
_DEVICE_LOST_ADVICE = dict.fromkeys(
    (errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM, errno.ENOTCONN, errno.ESHUTDOWN), _DEVICE_LOST_MESSAGE
)
"""Errors of detached devices, and of mounts whose server or FUSE process has died."""

_TARGET_ADVICE = {
    **_DEVICE_LOST_ADVICE,
    errno.ENOSPC: "the target volume is full: restore to a larger volume",
    errno.EDQUOT: "the quota of the target volume is used up: raise the quota or restore to a larger volume",
    errno.EFBIG: "the target's file system cannot hold a file of this size: restore to another kind of file system",
    errno.EIO: "the target volume has an I/O error: check its storage backend and the node's kernel log",
    errno.EROFS: "the target volume is read-only: check its access mode, its mount options and the node's kernel log",
    errno.ENOENT: "it vanished while it was being written: nothing else may use the volume during a restore",
    errno.EEXIST: "the target's file system treats two names as equal: restore to one that distinguishes all names",
    errno.ESTALE: "its directory was moved meanwhile: nothing else may use the volume during a restore",
    errno.ENOTDIR: "its kind changed while it was being written: nothing else may use the volume during a restore",
    errno.ELOOP: "a symbolic link appeared in its way: nothing else may use the volume during a restore",
    errno.EBUSY: "it is in use, or something is mounted there: unmount it, then restore again",
    errno.EPERM: "not permitted: it may be immutable (see lsattr), or the mover lacks a capability",
    errno.EACCES: "access denied: run the mover as root, or as the owner of the volume's files",
    errno.EMLINK: "the target's file system allows no more hard links: restore to another file system, or"
    f" {_BEST_EFFORT_ADVICE}",
    errno.ENAMETOOLONG: "the target's file system allows no such long name: restore to another kind of file system",
    errno.E2BIG: "the target's file system accepts no extended attribute of this size: restore to another file system,"
    f" or {_BEST_EFFORT_ADVICE}",
    errno.EILSEQ: "the target's file system rejects this name: restore to one that accepts any bytes as a name",
    errno.EINVAL: "the target's file system rejects it as invalid: restore to the kind of file system of the backup",
    errno.EOPNOTSUPP: "the target's file system does not support it: restore to the kind of file system of the backup",
    errno.EUCLEAN: "the target's file system is damaged: check it with fsck",
}
_SOURCE_ADVICE = {
    **_DEVICE_LOST_ADVICE,
    errno.EIO: "the volume has an I/O error: check its storage backend and the node's kernel log",
    errno.EACCES: "access denied: run the mover as root, or as a user who may read the whole volume",
    errno.EPERM: "not permitted: run the mover as root, or as a user who may read the whole volume",
    errno.EUCLEAN: "the file system is damaged: check it with fsck",
    errno.ENOENT: "it does not exist: check the volume's mount in the mover pod",
    errno.E2BIG: "it has more extended attributes than a backup can hold: remove some",
}
_SINGLE_OBJECT_ERRNOS = frozenset(
    {
        *(errno.EIO, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.E2BIG, errno.ERANGE, errno.EOVERFLOW),
        *(errno.EUCLEAN, errno.EBADMSG, errno.ENODATA, errno.EILSEQ, errno.EREMOTEIO, errno.EINVAL, errno.EOPNOTSUPP),
        *(errno.ENOKEY, errno.EKEYEXPIRED, errno.EKEYREVOKED, errno.EKEYREJECTED),
    }
)
"""Errors that may concern a single object: a bad sector (EIO, ENODATA, EILSEQ), damaged metadata (EUCLEAN, EBADMSG), a
missing permission, a missing key (fscrypt), or a limit of the format. A lack of memory or of descriptors is not one."""
_SKIP_ADVICE = "; unreadable Skip (--skip-unreadable) leaves it out"
_CONCURRENT_CHANGE_ERRNOS = frozenset({errno.ENOENT, errno.ESTALE, errno.ENOTDIR, errno.ELOOP})
"""Errors of a path that was found before and that another process has changed since."""


def format_path(path: bytes) -> str:
    r"""Return a path as printable text that can be converted back into the same bytes.

    Printable UTF-8 is unchanged; a backslash becomes ``\\``; bytes that are not UTF-8 or not printable become ``\xNN``.
    The empty path, the root of a volume, becomes ``.``.
    """
    text = path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else "".join(f"\\x{byte:02x}" for byte in c.encode()) for c in text) or "."


def target_error(error: OSError, action: str, path: bytes) -> TargetError:
    """Return the error of a target: cause, remedy, and last the path, because long messages are cut at the end."""
    return TargetError(_sentence(error, _TARGET_ADVICE, action, path))


def source_error(error: OSError, action: str, path: bytes) -> SourceError:
    """Return the error of a source that cannot be read."""
    return SourceError(_sentence(error, _SOURCE_ADVICE, action, path))


def object_error(error: OSError, action: str, path: bytes) -> SourceError:
    """Return the error of one object of a tree. A backup may leave the object out, unless it is the root."""
    concerns_one_object = bool(path) and error.errno in _SINGLE_OBJECT_ERRNOS
    advice = _SKIP_ADVICE if concerns_one_object else ""
    found = SourceError(_sentence(error, _SOURCE_ADVICE, action, path, advice))
    found.concerns_one_object = concerns_one_object
    return found


def source_vanished(path: bytes) -> SourceChanging:
    """Return the error of an object that was removed or replaced after the walk found it."""
    return SourceChanging(
        f"the volume changes while it is read: back up a snapshot, or try again ({format_path(path)} is gone)",
        reason=VANISHED,
    )


def directories_moved(path: bytes) -> SourceChanging:
    """Return the error of a walk below which directories were moved, so that it must start again."""
    return SourceChanging(
        f"the volume changes while it is read: back up a snapshot, or try again ({format_path(path)} was moved)"
    )


def is_concurrent_change(error: OSError) -> bool:
    """Return whether an error means that another process removed, renamed or replaced a found object."""
    return error.errno in _CONCURRENT_CHANGE_ERRNOS


def walk_error(error: OSError, action: str, path: bytes) -> SourceError | SourceChanging:
    """Return the error of a walk. A directory that moved ends the walk; other errors may concern only the object."""
    return directories_moved(path) if is_concurrent_change(error) else object_error(error, action, path)


def _sentence(error: OSError, advice: dict[int, str], action: str, path: bytes, more_advice: str = "") -> str:
    code = error.errno or 0
    name = errno.errorcode.get(code, str(code))
    return f"{advice.get(code, os.strerror(code))}{more_advice} ({name}: cannot {action} {format_path(path)})"
