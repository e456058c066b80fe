"""The errors that Cinderblock raises on purpose, in one tree.

Every error has two properties. *Permanent or transient* says whether a retry may help: the operation ends, or it is
repeated. *Reason* is a stable CamelCase word (`cinderblock.reasons.Reason`) of conditions, Events, reports and logs,
on which people and tools may match. The message is for a person and says what is wrong, where, and what to do. It never
contains a secret: every room rewrites the errors of the libraries that it uses.

    CinderblockError
    ├── PermanentError            a retry cannot help
    │   ├── InvalidInput          the request itself is wrong
    │   │   └── WrongRegion       requests are signed for another region than the container's
    │   ├── NotFound              something that the request names does not exist
    │   ├── Conflict              an object belongs to somebody else, or changed meanwhile
    │   │   └── AlreadyExists     an object of the same name exists
    │   ├── AccessDenied          the credentials are wrong or not sufficient
    │   │   ├── CredentialsRejected  the store does not accept the credentials
    │   │   │   └── CredentialsExpired  temporary credentials have expired
    │   │   └── ClockSkewed       the clock of this machine differs too much from the server's
    │   ├── StoreReadOnly         a store may only be read, so nothing changes it
    │   ├── ObjectLocked          the store keeps an object from being deleted or replaced
    │   ├── ObjectLockUnavailable the container or the credentials do not permit locks
    │   ├── LockNotExtended       a pack cannot be locked for as long as a backup needs it
    │   ├── ObjectArchived        an object is in an archive, and cannot be read at once
    │   ├── TooLarge              an object, a request or an answer exceeds a limit of its reader
    │   ├── KeyUnavailable        the encryption key of the data is missing
    │   ├── IntegrityError        stored bytes differ from the bytes that were written
    │   │   ├── ForeignManifest   a manifest belongs to another backup
    │   │   ├── SealBroken        a manifest must be encrypted and is not
    │   │   ├── ManifestReplaced  a manifest is not the one that was recorded
    │   │   ├── SealedTooLate     a manifest is newer than its key may seal
    │   │   └── WrongKey          a key of the Secret does not open a manifest that names it
    │   ├── UnsupportedFormat     an object has an unknown format version
    │   ├── TargetError           the volume cannot be written: full, read-only, detached
    │   └── SourceError           the volume cannot be read
    └── TransientError            a retry may help
        ├── StoreUnreachable      the S3 endpoint does not answer, answers 5xx or throttles, or another server answers
        │   ├── StoreThrottled    the S3 endpoint asks for fewer requests
        │   ├── StoreBusy         the operator makes too many other calls, and has not begun this one
        │   └── StoreTooSlow      the S3 endpoint answers, but a call has used up its time
        ├── KubeUnavailable       the API server does not answer, answers 5xx or throttles
        ├── NotLeading            another process may hold the Lease, so this one must not write
        └── SourceChanging        files change faster than they can be read
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from cinderblock.reasons import AnyReason, Reason

_REASONS = frozenset(Reason)


class CinderblockError(Exception):
    """Base of the tree.

    Attributes:
        reason: stable CamelCase word; without a more specific one, ``default_reason`` or the name of the class or of
            its nearest base.
        message: one sentence for a person, free of secrets.
        is_partly_done: whether a deletion has removed the manifest of a backup, and has to be repeated for its packs.
    """

    permanent = True
    is_partly_done: bool = False
    default_reason: ClassVar[Reason | None] = None

    def __init__(self, message: str, *, reason: AnyReason | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or _default_reason(type(self))


def _default_reason(kind: type[CinderblockError]) -> Reason:
    """Return the reason of the class, or the one that it or its nearest base is named after; otherwise Unexpected."""
    named = (Reason(base.__name__) for base in kind.__mro__ if base.__name__ in _REASONS)
    return kind.default_reason or next(named, Reason.UNEXPECTED)


class PermanentError(CinderblockError):
    """A retry cannot help: the operation ends in error."""


class TransientError(CinderblockError):
    """A retry may help: the operation is repeated, within limits."""

    permanent = False


class InvalidInput(PermanentError):
    """The request itself is wrong."""


class WrongRegion(InvalidInput):
    """Requests are signed for another region than the container's."""


class ResponseTooLarge(InvalidInput):
    """A response of the API server is larger than the caller can hold. The reason is that of InvalidInput."""


class NotFound(PermanentError):
    """Something that the request names does not exist."""


class ObjectNotFound(NotFound):
    """A container of a store has no object of that key. The reason is that of NotFound."""


class ContainerNotFound(NotFound):
    """A store has no container of that name."""


class Conflict(PermanentError):
    """An object belongs to somebody else, or it changed meanwhile."""


class AlreadyExists(Conflict):
    """An object of the same name exists. The UID of its owner shows whether it is ours."""


class BackupNeeded(Conflict):
    """Other backups need the stored data of a backup.

    Attributes:
        by: ids of these backups, in order.
    """

    def __init__(self, message: str, by: tuple[str, ...] = ()) -> None:
        super().__init__(message, reason=Reason.HAS_DEPENDENT_BACKUPS)
        self.by = by


class ReferencesUnknown(PermanentError):
    """Nothing shows whether other backups need the stored data of a backup.

    Attributes:
        cause: why one of the other backups cannot be read; its message says what to do.
        missing: ids of complete backups whose manifests the store does not list.
    """

    def __init__(self, message: str, cause: PermanentError | None = None, missing: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.cause = cause
        self.missing = missing


class AccessDenied(PermanentError):
    """The credentials are wrong or not sufficient."""


class CredentialsRejected(AccessDenied):
    """A store does not accept the credentials, whatever they may do. The reason is that of AccessDenied."""


class CredentialsExpired(CredentialsRejected):
    """Temporary credentials have expired."""


class ClockSkewed(AccessDenied):
    """The clock of this machine differs too much from the server's."""


class StoreReadOnly(PermanentError):
    """A store may only be read (spec.access: ReadOnly), so a call that would change it was not made."""


class ObjectLocked(PermanentError):
    """The store keeps an object from being deleted or replaced: a retention period or a legal hold.

    Attributes:
        until: when the retention period ends, if the store tells; None for a legal hold.
    """

    default_reason = Reason.LOCKED
    until: datetime | None = None


class ObjectLockUnavailable(PermanentError):
    """A store should lock objects (spec.objectLock), and its container or the credentials do not permit it."""


class LockNotExtended(PermanentError):
    """A pack that a backup needs cannot be locked for as long as the backup promises."""


class ObjectArchived(PermanentError):
    """An object is in an archive, and cannot be read before it is retrieved from there."""

    default_reason = Reason.ARCHIVED


class TooLarge(PermanentError):
    """An object, a request or an answer exceeds a limit of its reader."""


class KeyUnavailable(PermanentError):
    """The encryption key of the data is missing."""


class IntegrityError(PermanentError):
    """Stored bytes differ from the bytes that were written. The message names the object."""


class ForeignManifest(IntegrityError):
    """A manifest belongs to another backup than its reader expects."""


class SealBroken(IntegrityError):
    """A manifest must be encrypted and is not: somebody without a key may have put it there."""


class ManifestReplaced(IntegrityError):
    """A manifest is not the one that was recorded when the backup became available."""


class SealedTooLate(IntegrityError):
    """A manifest is newer than the date from which its key is read-only."""


class WrongKey(IntegrityError):
    """A key of the encryption Secret does not open a manifest that names it. The reason is that of IntegrityError.

    Either the Secret has another key under this id, or somebody changed the manifest's header.

    Attributes:
        key_id: id of the key.
    """

    key_id: str = ""


class UnsupportedFormat(PermanentError):
    """An object has a format version that this program does not know."""


class TargetError(PermanentError):
    """The volume cannot be written: it is full, read-only, too small or detached."""


class SourceError(PermanentError):
    """The volume cannot be read.

    Attributes:
        concerns_one_object: whether the error concerns a single object, which a backup may leave out.
    """

    concerns_one_object: bool = False


class StoreUnreachable(TransientError):
    """The S3 endpoint does not answer, answers 5xx or throttles, or another server answers in its place.

    Attributes:
        retry_after: seconds to wait before the next request, if the endpoint asks for that.
        is_of_another: whether another server answered, such as a proxy or a load balancer.
    """

    retry_after: float | None = None
    is_of_another: bool = False


class StoreThrottled(StoreUnreachable):
    """The S3 endpoint asks for fewer requests."""

    default_reason = Reason.THROTTLED


class StoreBusy(StoreUnreachable):
    """Too many other calls wait for answers of stores. This one has not begun, so it says nothing about the store."""


class StoreTooSlow(StoreUnreachable):
    """The S3 endpoint answers, but a call has used up its time."""


class KubeUnavailable(TransientError):
    """The API server does not answer, answers 5xx or throttles."""


class NotLeading(TransientError):
    """Another process may hold the Lease, so this one must not write."""


class SourceChanging(TransientError):
    """Files change faster than they can be read."""


FAIL_REASON_LIMIT = 255
"""Characters of ``failReason``. Cinder's column has 255, and Cinder cuts longer texts (``cinder.objects.backup``)."""


def fail_reason(text: str) -> str:
    """Return ``text`` as one line of at most 255 characters, as ``failReason`` holds it."""
    line = " ".join(text.split())
    return line if len(line) <= FAIL_REASON_LIMIT else line[: FAIL_REASON_LIMIT - 1] + "…"
