"""Assessment, before the work begins, of the metadata that this process cannot keep.

It uses the effective capabilities (proc(5), CapEff), the map of a user namespace, and calls to the file system that
write nothing. The mover normally has what Pod Security ``baseline`` allows (CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD,
SETFCAP). In a namespace that enforces ``restricted`` it has no capability.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from enum import IntEnum

from cinderblock.api.file_policies import Unreadable
from cinderblock.volume.errors import source_error, target_error
from cinderblock.volume.metadata_support import Feature, MetadataSupport
from cinderblock.volume.tree.metadata import ACCESS_ACL


class Capability(IntEnum):
    """Bits of a capability set (linux/capability.h)."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    FOWNER = 3
    FSETID = 4
    SYS_ADMIN = 21
    MKNOD = 27
    SETFCAP = 31


_ALL_IDS = 0xFFFFFFFF
"""Number of ids that the initial user namespace maps (user_namespaces(7))."""
_PROBE = "user.cinderblock"
"""An attribute that no object has: a file system with attributes returns ENODATA, one without EOPNOTSUPP."""


@dataclass(frozen=True, slots=True)
class ProcessCapabilities:
    """The rights of a process.

    Attributes:
        uid: effective user.
        capabilities: effective capabilities.
        is_confined: whether it runs in a user namespace that does not map all owners.
    """

    uid: int
    capabilities: frozenset[Capability]
    is_confined: bool

    @classmethod
    def of_this_process(cls) -> ProcessCapabilities:
        """Read the rights of this process from /proc."""
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            line = next(line for line in status if line.startswith("CapEff:"))
        mask = int(line.split()[1], 16)
        with open("/proc/self/uid_map", encoding="ascii") as uid_map:
            ids = sum(int(row.split()[2]) for row in uid_map)
        return cls(os.geteuid(), frozenset(c for c in Capability if mask >> c & 1), is_confined=ids < _ALL_IDS)

    def has(self, capability: Capability) -> bool:
        """Return whether the capability is effective."""
        return capability in self.capabilities

    @property
    def overrides_permissions(self) -> bool:
        """Whether the process may ignore modes and ACLs of files."""
        return self.has(Capability.DAC_OVERRIDE)


def assess_source(
    root: str | bytes, capabilities: ProcessCapabilities | None = None, unreadable: Unreadable = Unreadable.FAIL
) -> MetadataSupport:
    """Assess the metadata that a backup of the tree at ``root`` cannot keep.

    The kernel lists trusted.* attributes only to processes with CAP_SYS_ADMIN (xattr(7)).

    Args:
        root: the tree.
        capabilities: rights of the reading process; None: this process.
        unreadable: policy of the backup for files that it may not read.

    Raises SourceError if ``root`` cannot be read.
    """
    capabilities = capabilities or ProcessCapabilities.of_this_process()
    try:
        names = os.listxattr(root)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise source_error(error, "read", os.fsencode(root)) from error
        names = []
    lacking = {}
    if not capabilities.overrides_permissions and not capabilities.has(Capability.DAC_READ_SEARCH):
        outcome = "the backup fails at" if unreadable is Unreadable.FAIL else "the backup leaves out"
        lacking[Feature.ANY_FILE] = (
            f"running as user {capabilities.uid} without DAC_OVERRIDE: {outcome} files that this user may not read"
        )
    if "system.nfs4_acl" in names:
        lacking[Feature.ACLS] = "NFSv4 ACLs are not kept; permission bits are"
    if not capabilities.has(Capability.SYS_ADMIN) or capabilities.is_confined:
        lacking[Feature.TRUSTED_ATTRIBUTES] = ""
    return MetadataSupport(lacking)


def assess_target(root: str | bytes, capabilities: ProcessCapabilities | None = None) -> MetadataSupport:
    """Assess the metadata that a restore to the tree at ``root`` cannot keep.

    Raises TargetError if ``root`` cannot be read.
    """
    capabilities = capabilities or ProcessCapabilities.of_this_process()
    lacking = _lacking_by_capability(capabilities)
    try:
        has_attributes = _has_attribute_kind(root, _PROBE)
        has_acls = _has_attribute_kind(root, ACCESS_ACL.decode("ascii"))
        is_directory = stat.S_ISDIR(os.stat(root).st_mode)
    except OSError as error:
        raise target_error(error, "read", os.fsencode(root)) from error
    if not is_directory:
        raise target_error(NotADirectoryError(errno.ENOTDIR, ""), "restore to", os.fsencode(root))
    if not has_attributes:
        lacking[Feature.ATTRIBUTES] = "the target's file system has no extended attributes: they are not restored"
        lacking.setdefault(Feature.FILE_CAPABILITIES, "")
        lacking.setdefault(Feature.TRUSTED_ATTRIBUTES, "")
    if not has_acls:
        lacking[Feature.ACLS] = "the target's file system has no POSIX ACLs: they are not restored"
    return MetadataSupport(lacking)


def _lacking_by_capability(capabilities: ProcessCapabilities) -> dict[Feature, str]:
    """Return the features that this process cannot restore on any file system."""
    lacking = {}
    if not capabilities.has(Capability.CHOWN):
        lacking[Feature.OWNERS] = f"no CAP_CHOWN: restored files belong to user {capabilities.uid}"
    elif capabilities.is_confined:
        lacking[Feature.OWNERS] = "running in a user namespace: owners outside its range are not restored"
    if not capabilities.has(Capability.FOWNER):
        lacking[Feature.ANY_OWNER] = "no CAP_FOWNER: modes and times of existing files of other users are not restored"
    if not capabilities.has(Capability.FSETID):
        lacking[Feature.SETGID_BITS] = "no CAP_FSETID: setgid bits of files of other groups are not restored"
    if not capabilities.has(Capability.SETFCAP):
        lacking[Feature.FILE_CAPABILITIES] = "no CAP_SETFCAP: file capabilities are not restored"
    if not capabilities.has(Capability.MKNOD) or capabilities.is_confined:
        lacking[Feature.DEVICE_NODES] = "no CAP_MKNOD: device nodes are not restored"
    if not capabilities.has(Capability.SYS_ADMIN) or capabilities.is_confined:
        lacking[Feature.TRUSTED_ATTRIBUTES] = ""
    return lacking


def _has_attribute_kind(root: str | bytes, attribute: str) -> bool:
    """Return whether the file system supports attributes of this kind. Raises OSError."""
    try:
        os.getxattr(root, attribute)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return False
        if error.errno != errno.ENODATA:
            raise
    return True
