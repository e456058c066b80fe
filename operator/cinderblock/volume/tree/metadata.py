"""Owner, mode, extended attributes and mtime of one object of a tree: reading and setting them.

A *place* is an open descriptor, or a path from `dirfd.proc_path`, whose last part is never followed. Functions raise
OSError.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from cinderblock.format.entries import Entry, EntryKind
from cinderblock.volume.errors import format_path
from cinderblock.volume.metadata_support import Feature, MetadataLosses

Attributes = tuple[tuple[bytes, bytes], ...]

ACCESS_ACL = b"system.posix_acl_access"
DEFAULT_ACL = b"system.posix_acl_default"
CAPABILITY = b"security.capability"

_KEPT_NAMES = frozenset({ACCESS_ACL, DEFAULT_ACL, CAPABILITY})
_KEPT_PREFIXES = (b"user.", b"trusted.")
_OTHER_FORMS_PREFIX = b"trusted.SGI_"
"""XFS shows a POSIX ACL a second time, in its on-disk form (trusted.SGI_ACL_FILE, trusted.SGI_ACL_DEFAULT)."""
MAX_XATTR_BYTES: Final = 16 << 20
"""Most bytes of extended attributes of one object in a backup, names and values together. XFS and btrfs can hold
thousands of 64 KiB each. The writer of a manifest holds a section several times in memory, and readers accept no
section of more than 256 MiB (docs/reference/format.md)."""
_ABSENT = frozenset({errno.ENODATA, errno.EOPNOTSUPP})
_SETID_BITS: Final = stat.S_ISUID | stat.S_ISGID
COARSEST_NS: Final = 2_000_000_000
"""The coarsest granularity of timestamps: FAT counts in steps of two seconds. A smaller deviation means that the target
rounded the time; a larger one means that it changed the time."""
_BARE_ACL_BYTES: Final = 28
"""Bytes of an access ACL that is equivalent to the mode: a header and three entries. File systems keep only its mode
(linux/posix_acl_xattr.h)."""


def is_kept(name: bytes) -> bool:
    """Return whether an extended attribute belongs to the data.

    Others belong to the machine. The node assigns SELinux labels to each pod, and IMA and EVM signatures are bound to
    an inode. Attributes by which file systems show their own state (btrfs, ceph, NFSv4 ACLs) mean nothing elsewhere.
    Inode flags (chattr) are not attributes. They are neither read nor set, since setting most of them needs
    LINUX_IMMUTABLE.
    """
    return name in _KEPT_NAMES or (name.startswith(_KEPT_PREFIXES) and not name.startswith(_OTHER_FORMS_PREFIX))


def read_xattrs(place: int | bytes, limit: int | None = None) -> Attributes:
    """Return the kept extended attributes, sorted by name; none if the file system has no attributes.

    Args:
        place: the object.
        limit: most bytes of all of them together; None: any number.

    Raises OSError; E2BIG if there are more, before the rest of them is in memory.
    """
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
    size = 0
    for name in sorted(map(os.fsencode, names)):
        if is_kept(name):
            value = _read_one(place, name, follow)
            if value is not None:
                found.append((name, value))
                size += len(name) + len(value)
                if limit is not None and size > limit:
                    raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
    return tuple(found)


def drop_default_acl(fd: int) -> None:
    """Remove a directory's default ACL, if any, so that new files in it inherit nothing."""
    if any(name == DEFAULT_ACL for name, _ in read_xattrs(fd)):
        os.removexattr(fd, DEFAULT_ACL)


def apply_metadata(
    place: int | bytes, entry: Entry, *, is_new: bool, losses: MetadataLosses, status: os.stat_result | None = None
) -> None:
    """Set owner, mode, extended attributes and mtime of an object to those of ``entry``, where they differ.

    The order matters. user.* attributes come first, because they need write permission, which owner and mode may take
    away. Changing the owner clears setuid bits and capabilities, and changing the mode changes the ACL, so these follow
    in this order. All of it follows the content, because writing clears setuid bits and capabilities, too.

    At the end, the metadata that was set is read once: SMB, blobfuse and other file systems report success and do
    nothing. ``losses`` counts metadata that the target rejects, ignores or changes, or ends the run with a TargetError.

    Args:
        place: the object.
        entry: the metadata that it should get.
        is_new: whether it was just created and has no attributes yet.
        losses: counts losses.
        status: its state, if the caller has it.

    Raises OSError for an error that does not concern metadata.
    """
    status = status or os.stat(place, follow_symlinks=isinstance(place, int))
    present = {} if is_new else dict(read_xattrs(place))
    change = _Change(place, entry, losses, stat.S_IMODE(status.st_mode))
    if present:
        change.remove_attributes(present)
    if entry.xattrs:
        change.set_attributes((n, v) for n, v in entry.xattrs if n.startswith(b"user.") and present.get(n) != v)
    is_owned = (status.st_uid, status.st_gid) == (entry.uid, entry.gid)
    if not is_owned:
        is_owned = change.set_owner()
        present.pop(CAPABILITY, None)
    if entry.kind is not EntryKind.SYMLINK and change.set_mode(is_owned=is_owned):
        present.pop(ACCESS_ACL, None)
    if entry.xattrs:
        change.set_attributes((n, v) for n, v in entry.xattrs if not n.startswith(b"user.") and present.get(n) != v)
    if status.st_mtime_ns != entry.mtime_ns:
        change.set_mtime(status.st_atime_ns)
    change.verify()


class _Change:
    """The metadata of one object while it is set.

    Args:
        place: the object.
        entry: the metadata that it should get.
        losses: counts losses.
        mode: its current permission bits.
    """

    __slots__ = ("_entry", "_follow", "_losses", "_mode", "_place", "_set_mode", "_set_mtime", "_set_owner")

    def __init__(self, place: int | bytes, entry: Entry, losses: MetadataLosses, mode: int) -> None:
        self._place = place
        self._follow = isinstance(place, int)
        self._entry = entry
        self._losses = losses
        self._mode: int | None = mode
        self._set_owner = self._set_mtime = False
        self._set_mode: int | None = None

    def remove_attributes(self, present: dict[bytes, bytes]) -> None:
        """Remove attributes that the entry does not have. Removing an ACL may change the mode."""
        for name in present.keys() - dict(self._entry.xattrs).keys():
            try:
                os.removexattr(self._place, name, follow_symlinks=self._follow)
            except OSError as error:
                self._losses.count_if_expected(_feature_of(name), error, self._entry.path)
            self._mode = None

    def set_attributes(self, attributes: Iterable[tuple[bytes, bytes]]) -> None:
        """Set extended attributes, and check that they are present afterwards."""
        for name, value in attributes:
            try:
                os.setxattr(self._place, name, value, follow_symlinks=self._follow)
            except OSError as error:
                self._losses.count_if_expected(_feature_of(name), self._classify(error), self._entry.path)
                continue
            # A process that may write an attribute may not always read it.
            with suppress(OSError):
                if not _is_kept_as(name, value, _read_one(self._place, name, self._follow)):
                    self._losses.count_unapplied(_feature_of(name), self._entry.path, f"no {format_path(name)}")

    def set_owner(self) -> bool:
        """Set the owner. Return whether the object has that owner now, as far as is known."""
        entry = self._entry
        self._mode = None
        try:
            os.chown(self._place, entry.uid, entry.gid, follow_symlinks=self._follow)
        except OSError as error:
            self._losses.count_if_expected(Feature.OWNERS, error, entry.path)
            return False
        self._set_owner = True
        # A program must not get the rights of another owner, not even until `verify` runs.
        return not entry.mode & _SETID_BITS or self._has_owner(os.stat(self._place, follow_symlinks=self._follow))

    def set_mode(self, *, is_owned: bool) -> bool:
        """Set the mode if the object has another one. Return whether this was attempted."""
        mode = self._entry.mode if is_owned else _mode_for_another_owner(self._entry)
        if self._mode == mode:
            return False
        try:
            if isinstance(self._place, int):
                os.chmod(self._place, mode)
            else:
                _set_mode_of_path(self._place, mode)
        except OSError as error:
            self._losses.count_if_expected(self._of_another_owner(Feature.MODES), error, self._entry.path)
        else:
            self._set_mode = mode
        return True

    def set_mtime(self, atime_ns: int) -> None:
        """Set the mtime, and keep the atime."""
        times = (atime_ns, self._entry.mtime_ns)
        try:
            os.utime(self._place, ns=times, follow_symlinks=self._follow)
        except OSError as error:
            self._losses.count_if_expected(self._of_another_owner(Feature.TIMES), error, self._entry.path)
        else:
            self._set_mtime = True

    def verify(self) -> None:
        """Check that the object has the metadata that was set. This takes one system call if anything was set."""
        if not (self._set_owner or self._set_mtime or self._set_mode is not None):
            return
        entry, found = self._entry, os.stat(self._place, follow_symlinks=self._follow)
        if self._set_owner and not self._has_owner(found):
            self._losses.count_unapplied(Feature.OWNERS, entry.path, f"{found.st_uid}:{found.st_gid}")
        mode = stat.S_IMODE(found.st_mode)
        if self._set_mode is not None and mode not in (self._set_mode, entry.mode):
            self._losses.count_unapplied(self._feature_of_mode(mode), entry.path, f"{mode:04o}")
        if self._set_mtime and found.st_mtime_ns != entry.mtime_ns:
            self._compare_times(found.st_mtime_ns)

    def _compare_times(self, found_ns: int) -> None:
        if abs(found_ns - self._entry.mtime_ns) < COARSEST_NS:
            self._losses.count_tolerated(Feature.FRACTIONS, self._entry.path)
        else:
            self._losses.count_unapplied(Feature.TIMES, self._entry.path, f"{found_ns / 1e9:.0f} s since 1970")

    def _has_owner(self, status: os.stat_result) -> bool:
        return (status.st_uid, status.st_gid) == (self._entry.uid, self._entry.gid)

    def _of_another_owner(self, feature: Feature) -> Feature:
        """Return the feature to count. Without CAP_FOWNER, errors for files of other users were expected."""
        return Feature.ANY_OWNER if self._losses.lacks(Feature.ANY_OWNER) else feature

    def _feature_of_mode(self, found: int) -> Feature:
        """Return the feature to count. Without CAP_FSETID, the kernel silently drops a setgid bit (chmod(2))."""
        is_setgid = self._set_mode is not None and self._set_mode ^ found == stat.S_ISGID
        return Feature.SETGID_BITS if is_setgid and self._losses.lacks(Feature.SETGID_BITS) else Feature.MODES

    def _classify(self, error: OSError) -> OSError:
        """Replace ENOSPC if the file system is not full, but has no space for the attribute."""
        if error.errno == errno.ENOSPC and _has_space(self._place):
            return OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        return error


def _feature_of(name: bytes) -> Feature:
    """Return the feature that an attribute belongs to."""
    if name == CAPABILITY:
        return Feature.FILE_CAPABILITIES
    if name in (ACCESS_ACL, DEFAULT_ACL):
        return Feature.ACLS
    return Feature.TRUSTED_ATTRIBUTES if name.startswith(b"trusted.") else Feature.ATTRIBUTES


def _is_kept_as(name: bytes, value: bytes, found: bytes | None) -> bool:
    """Return whether an attribute that was set has the expected value.

    The kernel may change the bytes of ACLs and capabilities.
    """
    if name == ACCESS_ACL and len(value) <= _BARE_ACL_BYTES:
        return True
    if name in (ACCESS_ACL, DEFAULT_ACL, CAPABILITY):
        return found is not None
    return found == value


def _mode_for_another_owner(entry: Entry) -> int:
    """Return the mode of an object with the wrong owner, without setuid bits as with cp -p.

    Otherwise a setuid program would run as another user.
    """
    return entry.mode if entry.kind is EntryKind.DIRECTORY else entry.mode & ~_SETID_BITS


def _read_one(place: int | bytes, name: bytes, follow: bool) -> bytes | None:
    """Return the value of an attribute; None if it vanished after it was listed."""
    try:
        return os.getxattr(place, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise


def _has_space(place: int | bytes) -> bool:
    """Return whether a file system has free space. ext4 can lack it for attributes alone, kept in one block."""
    space = os.statvfs(place if isinstance(place, int) else place.rpartition(b"/")[0])
    return space.f_bavail > 0


def _set_mode_of_path(place: bytes, mode: int) -> None:
    """Set the mode through O_PATH, which neither follows a link that has appeared nor opens a device."""
    handle = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.chmod(b"/proc/self/fd/%d" % handle, mode)
    finally:
        os.close(handle)
