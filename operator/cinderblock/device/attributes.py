"""Owner, mode, extended attributes and mtime of one object of a tree: reading them, and making them as wanted.

A *place* is an open descriptor, or a path made by `directories.by_descriptor`, whose last part is never followed.
Functions raise OSError.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

from cinderblock.datapath.entries import Entry, EntryKind
from cinderblock.device.losses import Feature, Losses

Attributes = tuple[tuple[bytes, bytes], ...]

ACCESS_ACL = b"system.posix_acl_access"
DEFAULT_ACL = b"system.posix_acl_default"
CAPABILITY = b"security.capability"

_KEPT_NAMES = frozenset({ACCESS_ACL, DEFAULT_ACL, CAPABILITY})
_KEPT_PREFIXES = (b"user.", b"trusted.")
_OTHER_FORMS_PREFIX = b"trusted.SGI_"
"""XFS shows a POSIX ACL a second time, as it lies on disk (trusted.SGI_ACL_FILE, trusted.SGI_ACL_DEFAULT)."""
_ABSENT = frozenset({errno.ENODATA, errno.EOPNOTSUPP})


def is_kept(name: bytes) -> bool:
    """Whether an extended attribute belongs to the data.

    Others belong to the machine: SELinux labels are given by the node to each pod, IMA and EVM signatures are bound to
    an inode, and what file systems show of themselves (btrfs, ceph, NFSv4 ACLs) means nothing on another one. Inode
    flags (chattr) are no attributes: they are neither read nor set, since setting most of them needs LINUX_IMMUTABLE.
    """
    return name in _KEPT_NAMES or (name.startswith(_KEPT_PREFIXES) and not name.startswith(_OTHER_FORMS_PREFIX))


def read_attributes(place: int | bytes) -> Attributes:
    """The kept extended attributes, sorted by name; none where the file system has no attributes."""
    follow = isinstance(place, int)
    try:
        names = os.listxattr(place, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _ABSENT:
            return ()
        raise
    if not names:
        return ()
    found = []
    for name in sorted(map(os.fsencode, names)):
        if is_kept(name):
            value = _read_one(place, name, follow)
            if value is not None:
                found.append((name, value))
    return tuple(found)


def drop_default_acl(fd: int) -> None:
    """Take a directory's default ACL away, if it has one, so that what is created in it inherits nothing."""
    if any(name == DEFAULT_ACL for name, _ in read_attributes(fd)):
        os.removexattr(fd, DEFAULT_ACL)


def apply(
    place: int | bytes, entry: Entry, *, is_new: bool, losses: Losses, status: os.stat_result | None = None
) -> None:
    """Give an object the owner, mode, extended attributes and mtime of ``entry``; what is right already is not touched.

    The order matters. user.* attributes come first: they need write permission, which owner and mode may take away.
    Changing the owner takes setuid bits and capabilities away, changing the mode changes the ACL, so they follow in
    this order. All of it follows the content, since writing takes setuid bits and capabilities away too. What
    ``losses`` knows to be impossible is counted there; other refusals raise OSError.

    Args:
        place: the object.
        entry: what it is to be.
        is_new: whether it was made just now and has no attributes yet.
        losses: where the impossible is counted.
        status: its state, if the caller has it.
    """
    follow = isinstance(place, int)
    status = status or os.stat(place, follow_symlinks=follow)
    present = {} if is_new else dict(read_attributes(place))
    mode: int | None = stat.S_IMODE(status.st_mode)
    if present:
        for name in present.keys() - dict(entry.xattrs).keys():
            _remove_attribute(place, name, losses)
            mode = None
    if entry.xattrs:
        users = [(n, v) for n, v in entry.xattrs if n.startswith(b"user.") and present.get(n) != v]
        _set_attributes(place, users, losses)
    is_owned = (status.st_uid, status.st_gid) == (entry.uid, entry.gid)
    if not is_owned:
        is_owned = _set_owner(place, entry, losses)
        present.pop(CAPABILITY, None)
        mode = None
    wanted_mode = entry.mode if is_owned else _mode_for_another_owner(entry)
    if entry.kind is not EntryKind.SYMLINK and mode != wanted_mode:
        _set_mode(place, wanted_mode, losses)
        present.pop(ACCESS_ACL, None)
    if entry.xattrs:
        others = [(n, v) for n, v in entry.xattrs if not n.startswith(b"user.") and present.get(n) != v]
        _set_attributes(place, others, losses)
    if status.st_mtime_ns != entry.mtime_ns:
        _set_mtime(place, entry, status, losses)


def _feature_of(name: bytes) -> Feature:
    """What a process must be able to do to set this attribute."""
    if name == CAPABILITY:
        return Feature.FILE_CAPABILITIES
    if name in (ACCESS_ACL, DEFAULT_ACL):
        return Feature.ACLS
    return Feature.TRUSTED_ATTRIBUTES if name.startswith(b"trusted.") else Feature.ATTRIBUTES


def _mode_for_another_owner(entry: Entry) -> int:
    """The mode where the owner could not be set: a setuid program would run as somebody else (cp -p does the same)."""
    return entry.mode if entry.kind is EntryKind.DIRECTORY else entry.mode & ~(stat.S_ISUID | stat.S_ISGID)


def _read_one(place: int | bytes, name: bytes, follow: bool) -> bytes | None:
    """One attribute's value; None if it has gone since it was listed."""
    try:
        return os.getxattr(place, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise


def _remove_attribute(place: int | bytes, name: bytes, losses: Losses) -> None:
    try:
        os.removexattr(place, name, follow_symlinks=isinstance(place, int))
    except OSError as error:
        losses.forgive(_feature_of(name), error)


def _set_attributes(place: int | bytes, attributes: Iterable[tuple[bytes, bytes]], losses: Losses) -> None:
    for name, value in attributes:
        try:
            os.setxattr(place, name, value, follow_symlinks=isinstance(place, int))
        except OSError as error:
            if error.errno == errno.ENOSPC and _has_space(place):
                raise OSError(errno.E2BIG, os.strerror(errno.E2BIG)) from error
            losses.forgive(_feature_of(name), error)


def _has_space(place: int | bytes) -> bool:
    """Whether a file system without room for an attribute has room otherwise: ext4 keeps all of them in one block."""
    space = os.statvfs(place if isinstance(place, int) else place.rpartition(b"/")[0])
    return space.f_bavail > 0


def _set_owner(place: int | bytes, entry: Entry, losses: Losses) -> bool:
    """Whether the object has the wanted owner now."""
    try:
        os.chown(place, entry.uid, entry.gid, follow_symlinks=isinstance(place, int))
    except OSError as error:
        losses.forgive(Feature.OWNERS, error)
        return False
    return True


def _set_mode(place: int | bytes, mode: int, losses: Losses) -> None:
    try:
        if isinstance(place, int):
            os.chmod(place, mode)
        else:
            _set_mode_of_path(place, mode)
    except PermissionError as error:
        losses.forgive(Feature.ANY_OWNER, error)


def _set_mode_of_path(place: bytes, mode: int) -> None:
    """By way of O_PATH, which neither follows a link that has appeared nor opens a device."""
    handle = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.chmod(b"/proc/self/fd/%d" % handle, mode)
    finally:
        os.close(handle)


def _set_mtime(place: int | bytes, entry: Entry, status: os.stat_result, losses: Losses) -> None:
    try:
        os.utime(place, ns=(status.st_atime_ns, entry.mtime_ns), follow_symlinks=isinstance(place, int))
    except PermissionError as error:
        losses.forgive(Feature.ANY_OWNER, error)
