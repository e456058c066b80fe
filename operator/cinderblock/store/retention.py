"""Calls about the objects that a container keeps after their deletion. No store needs these calls to work.

Servers other than AWS know some of them or none, and credentials rarely allow all of them. So callers must
continue without an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, TypeVar

from cinderblock.errors import AccessDenied, CinderblockError, StoreUnreachable
from cinderblock.lifecycle.store.container_rules import (
    ContainerRules,
    LifecycleRule,
    ObjectLockRule,
    UnknownRule,
    Versioning,
)
from cinderblock.reasons import Reason

T = TypeVar("T")

VERSIONING_PERMISSION: Final = "s3:GetBucketVersioning"
OBJECT_LOCK_PERMISSION: Final = "s3:GetBucketObjectLockConfiguration"
LIFECYCLE_PERMISSION: Final = "s3:GetLifecycleConfiguration"
VERSIONS_PERMISSION: Final = "s3:ListBucketVersions"


@dataclass(frozen=True, slots=True)
class ObjectState:
    """The state of one key, as far as a server tells it.

    Attributes:
        exists: whether it has a current object.
        is_version: whether that is one of several possible versions, so that a deletion only hides it.
        is_null_version: whether it is from a time without versioning. Whether a deletion hides it depends on the
            container.
        is_hidden: whether a delete marker hides earlier versions. Not every server tells.
        retained_until: end of the retention period of the object, if it has one and the credentials may see it.
        has_legal_hold: the same for a legal hold.
        has_unknown_end: whether it has a retention period whose end the server does not tell readably.
        lock_mode: mode of its retention period, such as COMPLIANCE; empty: it has none, or the credentials may not see.
    """

    exists: bool
    is_version: bool = False
    is_hidden: bool = False
    retained_until: datetime | None = None
    has_legal_hold: bool = False
    is_null_version: bool = False
    has_unknown_end: bool = False
    lock_mode: str = ""

    @property
    def shows_lock(self) -> bool:
        """Whether the object has, or has had, a lock."""
        return self.has_legal_hold or self.has_unknown_end or self.retained_until is not None

    def is_locked(self, now: datetime) -> bool:
        """Return whether the object may not be deleted now."""
        is_retained = self.retained_until is not None and self.retained_until > now
        return self.has_legal_hold or self.has_unknown_end or is_retained


@dataclass(frozen=True, slots=True)
class Versions:
    """Keys of noncurrent versions in a container, without delete markers.

    Attributes:
        keys: one for each version.
        more: whether the listing stopped before its end.
    """

    keys: tuple[str, ...] = ()
    more: bool = False


class Retention(Protocol):
    """The calls about one container.

    Raises, from every method, AccessDenied without the permission, PermanentError if the server does not know the call
    or something else answers it, and StoreUnreachable if nothing answers now.
    """

    def versioning(self) -> Versioning:
        """Return whether the container keeps versions. Needs s3:GetBucketVersioning."""

    def object_lock(self) -> ObjectLockRule | None:
        """Return the rule of Object Lock; None: it is off. Needs s3:GetBucketObjectLockConfiguration."""

    def lifecycle(self) -> tuple[LifecycleRule, ...]:
        """Return the lifecycle rules that may concern our objects. Needs s3:GetLifecycleConfiguration."""

    def versions(self, prefix: str, limit: int, /) -> Versions:
        """List about ``limit`` noncurrent versions of keys with this prefix, at most. Needs s3:ListBucketVersions."""

    def inspect(self, key: str, /) -> ObjectState:
        """Return the state of one key. A lock is only seen with s3:GetObjectRetention and s3:GetObjectLegalHold."""


class NoRetention:
    """The retention of a container that deletes at once."""

    def versioning(self) -> Versioning:
        """See Retention."""
        return Versioning.OFF

    def object_lock(self) -> ObjectLockRule | None:
        """See Retention."""
        return None

    def lifecycle(self) -> tuple[LifecycleRule, ...]:
        """See Retention."""
        return ()

    def versions(self, _prefix: str, _limit: int, /) -> Versions:
        """See Retention: what is current is not listed."""
        return Versions()

    def inspect(self, _key: str, /) -> ObjectState:
        """See Retention."""
        return ObjectState(exists=True)


def read_rules(retention: Retention) -> ContainerRules:
    """Ask for all rules of a container, in three requests.

    A rule that the server does not tell is unknown, with the cause. Raises StoreUnreachable if it does not answer.
    """
    return ContainerRules(
        _ask(retention.versioning, VERSIONING_PERMISSION),
        _ask(retention.object_lock, OBJECT_LOCK_PERMISSION),
        _ask(retention.lifecycle, LIFECYCLE_PERMISSION),
    )


def unknown_rule(error: CinderblockError, permission: str) -> UnknownRule:
    """Return why a server does not tell something, and what to do about it.

    Only a plain AccessDenied is about a permission. Its kinds, such as expired credentials, explain themselves.
    """
    if type(error) is AccessDenied:
        return UnknownRule(Reason.ACCESS_DENIED, f"the credentials lack a permission. Allow {permission}")
    if error.reason is Reason.NOT_SUPPORTED:
        return UnknownRule(Reason.NOT_SUPPORTED, f"the server does not support the request ({permission})")
    return UnknownRule(error.reason, error.message.removesuffix("."))


def _ask(read: Callable[[], T], permission: str) -> T | UnknownRule:
    try:
        return read()
    except StoreUnreachable:
        raise
    except CinderblockError as error:
        return unknown_rule(error, permission)
