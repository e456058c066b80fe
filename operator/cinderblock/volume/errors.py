"""What the kernel says when it refuses, made into errors that a person can act on."""

from __future__ import annotations

import errno
import os

from cinderblock.errors import SourceChanging, SourceError, TargetError
from cinderblock.reasons import Reason

VANISHED = Reason.SOURCE_VANISHED
"""Reason of the SourceChanging that says: this path is gone, or is something else now. Leaving it out is right."""

_GO_ON = "let fidelity BestEffort (--best-effort) go on"
_GONE = "the volume is gone: check its storage backend, its attachment and the node's kernel log, then try again"
_LOST = dict.fromkeys((errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM, errno.ENOTCONN, errno.ESHUTDOWN), _GONE)
"""What devices that were detached answer, and mounts whose server or FUSE process has died."""

_TARGET_ADVICE = {
    **_LOST,
    errno.ENOSPC: "the target volume is full: restore to a larger volume",
    errno.EDQUOT: "the quota of the target volume is used up: raise the quota or restore to a larger volume",
    errno.EFBIG: "the target's file system cannot hold a file of this size: restore to another kind of file system",
    errno.EIO: "the target volume has an I/O error: check its storage backend and the node's kernel log",
    errno.EROFS: "the target volume is read-only: check its access mode, its mount options and the node's kernel log",
    errno.ENOENT: "it vanished while it was being written: nothing else may use the volume during a restore",
    errno.EEXIST: "the target's file system takes two names for the same: restore to one that tells all names apart",
    errno.ESTALE: "its directory was moved meanwhile: nothing else may use the volume during a restore",
    errno.ENOTDIR: "its kind changed while it was being written: nothing else may use the volume during a restore",
    errno.ELOOP: "a symbolic link appeared in its way: nothing else may use the volume during a restore",
    errno.EBUSY: "it is in use, or something is mounted there: unmount it, then restore again",
    errno.EPERM: "not permitted: it may be immutable (see lsattr), or the mover lacks a capability",
    errno.EACCES: "access denied: run the mover as root, or as the user who owns the volume's files",
    errno.EMLINK: f"the target's file system allows no more hard links: restore to another file system, or {_GO_ON}",
    errno.ENAMETOOLONG: "the target's file system allows no such long name: restore to another kind of file system",
    errno.E2BIG: "the target's file system takes no extended attribute of this size: restore to another file system, or"
    f" {_GO_ON}",
    errno.EILSEQ: "the target's file system refuses this name: restore to one that takes any bytes as a name",
    errno.EINVAL: "the target's file system refuses it as invalid: restore to the kind of file system of the backup",
    errno.EOPNOTSUPP: "the target's file system cannot do it: restore to the kind of file system of the backup",
    errno.EUCLEAN: "the target's file system is damaged: check it with fsck",
}
_SOURCE_ADVICE = {
    **_LOST,
    errno.EIO: "the volume has an I/O error: check its storage backend and the node's kernel log",
    errno.EACCES: "access denied: run the mover as root, or as a user who may read all of the volume",
    errno.EPERM: "not permitted: run the mover as root, or as a user who may read all of the volume",
    errno.EUCLEAN: "the file system is damaged: check it with fsck",
    errno.ENOENT: "it does not exist: check the volume's mount in the mover pod",
    errno.E2BIG: "it has more extended attributes than a backup holds: remove some",
}
_OF_ONE = frozenset(
    {
        *(errno.EIO, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.E2BIG, errno.ERANGE, errno.EOVERFLOW),
        *(errno.EUCLEAN, errno.EBADMSG, errno.ENODATA, errno.EILSEQ, errno.EREMOTEIO, errno.EINVAL, errno.EOPNOTSUPP),
        *(errno.ENOKEY, errno.EKEYEXPIRED, errno.EKEYREVOKED, errno.EKEYREJECTED),
    }
)
"""Errors that may concern a single object: a bad sector (EIO, ENODATA, EILSEQ), damaged metadata (EUCLEAN, EBADMSG), no
permission, no key (fscrypt), or more than a format holds. A lack of memory or of descriptors is not among them."""
_LEFT_OUT = "; unreadable Skip (--skip-unreadable) leaves it out"
_MOVED_UNDER_US = frozenset({errno.ENOENT, errno.ESTALE, errno.ENOTDIR, errno.ELOOP})
"""What a path that was there a moment ago answers after somebody else changed it."""


def format_path(path: bytes) -> str:
    r"""A path as text that can be printed and turned back into the same bytes.

    UTF-8 stays as it is; a backslash becomes ``\\``; bytes that are no UTF-8, or of what cannot be printed, become
    ``\xNN``. The empty path, the root of a volume, is ``.``.
    """
    text = path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else "".join(f"\\x{byte:02x}" for byte in c.encode()) for c in text) or "."


def target_error(error: OSError, action: str, path: bytes) -> TargetError:
    """The error of a target: why, what to do, and last the path, since paths may be long and messages are cut."""
    return TargetError(_sentence(error, _TARGET_ADVICE, action, path))


def source_error(error: OSError, action: str, path: bytes) -> SourceError:
    """The error of a source that cannot be read."""
    return SourceError(_sentence(error, _SOURCE_ADVICE, action, path))


def object_error(error: OSError, action: str, path: bytes) -> SourceError:
    """Return the error of one object of a tree. A backup may leave the object out, unless it is the root."""
    is_of_one = bool(path) and error.errno in _OF_ONE
    refusal = SourceError(_sentence(error, _SOURCE_ADVICE, action, path, _LEFT_OUT if is_of_one else ""))
    refusal.is_of_one = is_of_one
    return refusal


def source_moved(path: bytes) -> SourceChanging:
    """What a walk found a moment ago is gone, or is something else now."""
    return SourceChanging(
        f"the volume changes while it is read: back up a snapshot, or try again ({format_path(path)} is gone)",
        reason=VANISHED,
    )


def source_rearranged(path: bytes) -> SourceChanging:
    """Directories were moved under a walk: it has lost its way, and must begin again."""
    return SourceChanging(
        f"the volume changes while it is read: back up a snapshot, or try again ({format_path(path)} was moved)"
    )


def has_moved(error: OSError) -> bool:
    """Whether a refusal means that somebody else removed, renamed or replaced what was there a moment ago."""
    return error.errno in _MOVED_UNDER_US


def walk_error(error: OSError, action: str, path: bytes) -> SourceError | SourceChanging:
    """Only a name that is not there any more may be left out; whatever else has moved makes a walk worthless."""
    return source_rearranged(path) if has_moved(error) else object_error(error, action, path)


def _sentence(error: OSError, advice: dict[int, str], action: str, path: bytes, more: str = "") -> str:
    code = error.errno or 0
    name = errno.errorcode.get(code, str(code))
    return f"{advice.get(code, os.strerror(code))}{more} ({name}: cannot {action} {format_path(path)})"
