"""Rights of the mover of one operation in a shared store.

The broker signs requests and makes session policies from a Grant, and from nothing else. All keys of a grant are below
the prefix of one namespace, and that prefix comes from the namespace of the mover's token. So a mover reaches no object
of another namespace, whatever a status, a Job or the mover says.

The one exception is a restore by a BackupGrant. It reads one manifest of the other namespace, and the packs that this
manifest lists. The VolumeBackup there must record the restore by its UID, so a status in the namespace of the restore
alone gives nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from cinderblock.api import layout
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.verification import BackupVerification, VerificationLevel
from cinderblock.errors import AccessDenied
from cinderblock.lifecycle.backup_grants import readers
from cinderblock.lifecycle.store.access import read_only
from cinderblock.reasons import Reason

Operation = VolumeBackup | VolumeRestore | BackupVerification

POLICY_CHARACTERS: Final = 2048
"""Most characters of a session policy (AWS STS API: AssumeRoleWithWebIdentity, Policy)."""
CHECKED_KEYS: Final = 1
"""Keys that a mover may list at the root of its prefix, to check that the store answers."""

_NAME: Final = re.compile(r"[0-9a-f]{32}-[0-9]{6,10}|data-key|0-inherited")
"""Last part of the key of a pack, of a wrapped data key and of the mark of a removed backup. There are no others: some
servers find something else behind names of their own (versitygw: `.sgwtmp`)."""
_LISTED: Final = re.compile(r"[A-Za-z0-9._/-]*")
"""Text that may follow the directory of a volume in the prefix of a listing."""
_ARN: Final = re.compile(r"arn:(aws[a-z-]{0,20}):")
_READING: Final = frozenset({"GET", "HEAD"})
_WRITING: Final = frozenset({"PUT", "POST", "DELETE"})


def _lists_nothing(_backup_id: str, _name: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Grant:
    """Rights of a mover in a shared store.

    Attributes:
        container: the bucket.
        prefix: of the namespace, without a slash at its end. It is never empty.
        volume_id: the volume whose backups the mover may read.
        backup_id: the backup that the mover writes; None: it writes nothing.
        only_backup: the only backup whose manifest and packs the mover may read; None: it may read all of the volume.
        lists_pack: whether the manifest of ``only_backup`` lists the pack of a backup with a name. Without it, no pack
            may be read then.
    """

    container: str
    prefix: str
    volume_id: str
    backup_id: str | None = None
    only_backup: str | None = None
    lists_pack: Callable[[str, str], bool] = _lists_nothing

    def __post_init__(self) -> None:
        """Check the parts. Raises AccessDenied (NotGranted) for ids that would change the meaning of a key."""
        ids = [text for text in (self.volume_id, self.backup_id, self.only_backup) if text is not None]
        if not self.prefix or not all(map(layout.is_id, ids)):
            raise _not_granted("the status of the operation has no valid ids of volume and backup")

    def permits(self, method: str, key: str) -> bool:
        """Return whether the mover may send a request with this method about the object with this key.

        HEAD counts as GET. PUT and POST upload an object or parts of it, and DELETE deletes it or aborts an upload.
        """
        if method in _READING:
            return self._is_of_volume(key)
        return method in _WRITING and self._is_own(key)

    def permits_listing(self, prefix: str, max_keys: int | None = None) -> bool:
        """Return whether the mover may list the objects whose keys begin with ``prefix``.

        Args:
            prefix: of the listed keys.
            max_keys: most keys of the answer; None: what the server chooses.
        """
        if self.only_backup is not None:
            return False
        roots = (self.packs, self.manifests)
        is_below = any(prefix.startswith(root) and _is_listed(prefix.removeprefix(root)) for root in roots)
        is_check = prefix == f"{self.prefix}/" and max_keys is not None and 0 <= max_keys <= CHECKED_KEYS
        return is_below or is_check

    def permits_uploads(self, prefix: str) -> bool:
        """Return whether the mover may list the unfinished uploads of the object with the key ``prefix``."""
        return self._is_own(prefix)

    @property
    def scope(self) -> str:
        """UID of the namespace whose place this is, to which data keys are bound."""
        return self.prefix.rpartition("/")[2]

    @property
    def packs(self) -> str:
        """Prefix of the packs of the volume."""
        return f"{layout.pack_root(self.prefix)}{self.volume_id}/"

    @property
    def manifests(self) -> str:
        """Prefix of the manifests of the volume."""
        return f"{layout.backup_prefix(self.prefix)}{self.volume_id}/"

    def _is_of_volume(self, key: str) -> bool:
        if key.startswith(self.packs):
            backup_id, _, name = key.removeprefix(self.packs).partition("/")
            is_pack = layout.is_id(backup_id) and _NAME.fullmatch(name) is not None
            return is_pack and (self.only_backup is None or self.lists_pack(backup_id, name))
        ids = layout.stored_ids(key, self.prefix)
        return ids is not None and ids[0] == self.volume_id and self.only_backup in (None, ids[1])

    def permits_key_of(self, volume_id: str, backup_id: str) -> bool:
        """Return whether the mover may open the data key of a backup. A manifest holds the keys of its ancestors."""
        return volume_id == self.volume_id and self.only_backup in (None, backup_id)

    def _is_own(self, key: str) -> bool:
        if self.backup_id is None:
            return False
        root = layout.pack_prefix(self.prefix, self.volume_id, self.backup_id)
        is_pack = key.startswith(root) and _NAME.fullmatch(key.removeprefix(root)) is not None
        return is_pack or key == layout.manifest_key(self.prefix, self.volume_id, self.backup_id)


def _is_listed(tail: str) -> bool:
    """Return whether this may follow the directory of a volume. Some servers resolve the parts "." and ".."."""
    return _LISTED.fullmatch(tail) is not None and not {".", ".."} & set(tail.split("/"))


def of_backup(backup: VolumeBackup, store: SharedStore) -> Grant:
    """Return the grant of the mover that makes a backup: it writes this backup and reads those of the volume.

    The id of the backup is its UID, which only the API server chooses. Raises AccessDenied (NotGranted) if the status
    names no volume, or another bucket than that of the store. Raises StoreReadOnly if nothing may change the bucket,
    even if the mover runs already: it ends with that error.
    """
    if store.is_read_only:
        raise read_only(store)
    _check_container(backup.status.container, store)
    if backup.spec.import_ is not None or backup.status.volume_id is None:
        raise _not_granted(f"VolumeBackup {backup.name} makes no backup")
    return Grant(store.spec.container, store.spec.prefix, backup.status.volume_id, backup.uid)


def of_reader(operation: VolumeRestore | BackupVerification, backup: VolumeBackup, store: SharedStore) -> Grant:
    """Return the grant of the mover that restores or verifies a backup: it reads the backups of that volume.

    Raises AccessDenied (NotGranted) if the operation has no mover that reads, or the manifest of the backup is not
    below the prefix of the namespace.
    """
    if isinstance(operation, BackupVerification) and operation.spec.level is VerificationLevel.RESTORE:
        # Its Job is the check of a restored volume, which runs a program of the user.
        raise _not_granted(f"BackupVerification {operation.name} of level Restore reads nothing from the store")
    if operation.status.backup_id != backup.backup_id:
        raise _not_granted(f"VolumeBackup {backup.name} is not the backup of {operation.kind} {operation.name}")
    _check_container(backup.status.container, store)
    ids = layout.stored_ids(backup.status.manifest_key or "", store.spec.prefix)
    if ids is None:
        raise _not_granted(f"the manifest of VolumeBackup {backup.name} is not below the prefix of the namespace")
    return Grant(store.spec.container, store.spec.prefix, ids[0])


def of_granted(restore: VolumeRestore, backup: VolumeBackup, store: SharedStore) -> Grant:
    """Return the grant of the mover that restores a backup of another namespace: it reads that backup, and no other.

    Args:
        restore: the VolumeRestore.
        backup: the VolumeBackup of the other namespace.
        store: the store of that namespace.

    Raises AccessDenied (NotGranted) unless both objects name each other. The operator writes both statuses, and that of
    the backup only when a BackupGrant permits it.
    """
    names_backup = restore.granted_from == backup.namespace == restore.status.backup_namespace
    if not names_backup or not readers.is_recorded(restore, backup):
        raise _not_granted(f"the backup of VolumeRestore {restore.name} does not record it")
    if restore.status.mover is None or restore.status.mover.store_name != backup.status.store_name:
        raise _not_granted(f"the backup of VolumeRestore {restore.name} is in another store")
    grant = of_reader(restore, backup, store)
    ids = layout.stored_ids(backup.status.manifest_key or "", store.spec.prefix)
    if ids is None:
        raise _not_granted("the manifest of the backup is not below the prefix of its namespace")
    return replace(grant, only_backup=ids[1])


def session_policy(grant: Grant, bucket: str, partition: str = "aws") -> str:
    """Return the session policy that lets the holder of session credentials do what the grant permits.

    IAM evaluates it together with the policies of the role, and only narrows those (IAM User Guide, "Session
    policies"). Each permission is a statement of its own, if the policy stays below POLICY_CHARACTERS. With a very long
    prefix it does not. Then one statement permits everything of this volume, and another one denies writing anything
    but the one backup. The mover may then list all keys of its own namespace.

    Args:
        grant: what it permits.
        bucket: the bucket.
        partition: of its ARN: aws, aws-cn, aws-us-gov and others.

    Raises AccessDenied (NotGranted) for a grant of one backup, whose packs are too many for a policy.
    """
    if grant.only_backup is not None:
        raise _not_granted("session credentials cannot be limited to one backup of another namespace")
    root = f"arn:{partition}:s3:::"
    policy = _encode(_explicit_statements(grant, f"{root}{bucket}"))
    return policy if len(policy) < POLICY_CHARACTERS else _encode(_short_statements(grant, root, bucket))


def partition_of(role_arn: str) -> str:
    """Return the partition of an ARN; "aws" for what other servers call a role (AWS: ARN format)."""
    found = _ARN.match(role_arn)
    return found[1] if found is not None else "aws"


def _explicit_statements(grant: Grant, resource: str) -> list[dict[str, Any]]:
    """Return one statement for each permission."""
    packs, manifests = grant.packs, grant.manifests
    listing = {"StringLike": {"s3:prefix": [f"{packs}*", f"{manifests}*"]}}
    check = {
        "StringEquals": {"s3:prefix": f"{grant.prefix}/"},
        "NumericLessThanEquals": {"s3:max-keys": str(CHECKED_KEYS)},
    }
    statements = [
        _allow("s3:GetObject", [f"{resource}/{packs}*", f"{resource}/{manifests}*"]),
        _allow("s3:ListBucket", resource) | {"Condition": listing},
        _allow("s3:ListBucket", resource) | {"Condition": check},
    ]
    if grant.backup_id is not None:
        own = layout.pack_prefix(grant.prefix, grant.volume_id, grant.backup_id)
        manifest = layout.manifest_key(grant.prefix, grant.volume_id, grant.backup_id)
        statements.append(_allow(_WRITE_ACTIONS, [f"{resource}/{own}*", f"{resource}/{manifest}"]))
    return statements


def _short_statements(grant: Grant, root: str, bucket: str) -> list[dict[str, Any]]:
    """Return the statements that contain the prefix twice."""
    actions = ["s3:GetObject", *(_WRITE_ACTIONS if grant.backup_id is not None else ())]
    # "packs/" and "backups/" are the only directories below the prefix, and both end with "s/".
    statements = [
        _allow(actions, f"{root}{bucket}/{grant.prefix}/*s/{grant.volume_id}/*"),
        _allow("s3:ListBucket", f"{root}{bucket}") | {"Condition": {"StringLike": {"s3:prefix": f"{grant.prefix}/*"}}},
    ]
    if grant.backup_id is not None:
        own = f"s/{grant.volume_id}/{grant.backup_id}"
        others = [f"{root}*{own}/*", f"{root}*{own}.manifest"]
        statements.append({"Effect": "Deny", "Action": _WRITE_ACTIONS[:2], "NotResource": others})
    return statements


_WRITE_ACTIONS: Final = ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
"""Actions of a writer. The first two change objects. Only its owner knows the id of an upload to abort."""


def _allow(action: str | list[str], resource: str | list[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource}


def _encode(statements: list[dict[str, Any]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))


def _check_container(container: str | None, store: SharedStore) -> None:
    if container is not None and container != store.spec.container:
        raise _not_granted(f"the backup is in bucket {container}, and the store gives access to {store.spec.container}")


def _not_granted(cause: str) -> AccessDenied:
    return AccessDenied(f"Cannot use the shared store: {cause}.", reason=Reason.NOT_GRANTED)
