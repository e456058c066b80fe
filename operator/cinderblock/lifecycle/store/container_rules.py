"""The rules of a container for deleted objects: versioning, Object Lock and lifecycle rules."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cinderblock.reasons import AnyReason


class Versioning(StrEnum):
    """Whether a container keeps versions of objects that are deleted or replaced."""

    OFF = "Off"
    ENABLED = "Enabled"
    SUSPENDED = "Suspended"
    """Versions from before remain, and no new ones are made."""


@dataclass(frozen=True, slots=True)
class UnknownRule:
    """A rule that the server does not reveal.

    Attributes:
        reason: AccessDenied, NotSupported, or the reason of another refusal.
        message: the cause and the remedy, for a person.
    """

    reason: AnyReason
    message: str


@dataclass(frozen=True, slots=True)
class ObjectLockRule:
    """Object Lock is on.

    Attributes:
        mode: mode of the default retention, such as COMPLIANCE; empty: there is no default retention.
        period: how long the default retention keeps a new object, for a person.
    """

    mode: str = ""
    period: str = ""


@dataclass(frozen=True, slots=True)
class LifecycleRule:
    """A lifecycle rule that is switched on and may concern objects without tags.

    Attributes:
        name: its id.
        prefix: beginning of the keys that it concerns.
        expires: when it removes current objects, for a person; empty: never.
        archives: when it moves current objects to a class that cannot be read at once, and to which one; empty: never.
        moves: the same for a class that AWS does not have, whose objects perhaps cannot be read at once.
        version_days: days until it removes a noncurrent version; None: it keeps some or all of them.
        is_partial: whether it leaves out objects because of their size.
    """

    name: str
    prefix: str = ""
    expires: str = ""
    archives: str = ""
    version_days: int | None = None
    is_partial: bool = False
    moves: str = ""

    def touches(self, root: str) -> bool:
        """Return whether it may concern objects whose keys begin with ``root``."""
        return root.startswith(self.prefix) or self.prefix.startswith(root)

    def covers(self, root: str) -> bool:
        """Return whether it concerns every object whose key begins with ``root``."""
        return root.startswith(self.prefix) and not self.is_partial


@dataclass(frozen=True, slots=True)
class ContainerRules:
    """The rules of one container.

    Attributes:
        versioning: whether versions remain of deleted objects.
        object_lock: the rule for new objects; None: Object Lock is off.
        lifecycle: the lifecycle rules that may concern backups.
    """

    versioning: Versioning | UnknownRule
    object_lock: ObjectLockRule | UnknownRule | None
    lifecycle: tuple[LifecycleRule, ...] | UnknownRule

    @property
    def are_known(self) -> bool:
        """Whether the server has revealed all of them."""
        return not any(isinstance(rule, UnknownRule) for rule in (self.versioning, self.object_lock, self.lifecycle))
