"""A bucket with the rules of AWS for versioning and Object Lock.

Sources: S3 User Guide, "Deleting object versions from a versioning-enabled bucket", "How Object Lock works" and
"Object Lock considerations"; S3 API, PutObject, DeleteObject and DeleteObjects.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

NULL = "null"
"""Id of a version that was written while versioning was off or suspended."""
LOCKED_TEXT = "Access Denied because object protected by object lock."


class Refusal(Exception):
    """An error of S3: HTTP status, code and message."""

    def __init__(self, status: int, code: str, message: str = "It says why.", **headers: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


@dataclass
class Version:
    """A version of an object, or a delete marker, which has no body."""

    id: str
    body: bytes | None
    written: datetime
    mode: str = ""
    until: datetime | None = None
    legal_hold: bool = False

    @property
    def is_marker(self) -> bool:
        """Whether this is a delete marker."""
        return self.body is None


@dataclass
class Bucket:
    """The rules and the content of a bucket.

    Attributes:
        now: the clock of the server.
        versioning: ``Enabled``, ``Suspended``, or empty.
        has_lock: whether Object Lock is on.
        default: mode and period of the default retention.
        lifecycle: the body of the lifecycle configuration; empty: there is none.
        versions: all versions and markers of each key, oldest first.
        uploads: the parts of unfinished uploads: key, then body by number.
        upload_locks: the locks that unfinished uploads give to their objects.
    """

    now: Callable[[], datetime]
    versioning: str = ""
    has_lock: bool = False
    default: tuple[str, timedelta] | None = None
    lifecycle: str = ""
    versions: dict[str, list[Version]] = field(default_factory=dict)
    uploads: dict[str, tuple[str, dict[int, bytes]]] = field(default_factory=dict)
    upload_locks: dict[str, Version | None] = field(default_factory=dict)
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def current(self, key: str) -> Version | None:
        """Return the newest version or marker of a key."""
        found = self.versions.get(key)
        return found[-1] if found else None

    def find(self, key: str, version_id: str) -> Version | None:
        """Return the version with an id."""
        return next((version for version in self.versions.get(key, []) if version.id == version_id), None)

    def listed(self, prefix: str) -> list[tuple[str, Version]]:
        """Return the current objects with a prefix in the order of their keys."""
        found = [(key, versions[-1]) for key, versions in self.versions.items() if key.startswith(prefix)]
        return sorted((key, version) for key, version in found if not version.is_marker)

    def put(self, key: str, body: bytes, lock: Version | None = None) -> Version:
        """Store an object, with the lock of the request or of the default retention."""
        self._refuse_to_replace(key)
        version = self._add(key, body)
        if lock is not None:
            version.mode, version.until, version.legal_hold = lock.mode, lock.until, lock.legal_hold
        if version.until is None and self.default is not None:
            version.mode, version.until = self.default[0], self.now() + self.default[1]
        return version

    def delete(self, key: str) -> Version | None:
        """Delete a key without naming a version. Return the marker, if the bucket keeps versions."""
        self._refuse_to_replace(key)
        if self.versioning:
            return self._add(key, None)
        self.versions.pop(key, None)
        return None

    def delete_version(self, key: str, version_id: str, *, bypass: bool) -> Version | None:
        """Delete one version for good. Return it if it was a marker."""
        version = self.find(key, version_id)
        if version is None:
            return None
        if not version.is_marker:
            self._refuse_if_locked(version, bypass=bypass)
        self.versions[key].remove(version)
        if not self.versions[key]:
            del self.versions[key]
        return version if version.is_marker else None

    def set_lock(self, version: Version, mode: str, until: datetime, *, bypass: bool) -> None:
        """Set or extend a lock. Nothing shortens one, or weakens its mode, except a bypass of GOVERNANCE."""
        is_active = version.until is not None and version.until > self.now()
        is_weaker = version.until is not None and until < version.until
        is_weaker |= (version.mode, mode) == ("COMPLIANCE", "GOVERNANCE")
        if is_active and is_weaker and not (bypass and version.mode == "GOVERNANCE"):
            raise Refusal(403, "AccessDenied", LOCKED_TEXT)
        if until <= self.now():
            raise Refusal(400, "InvalidArgument", "The retain until date must be in the future!")
        version.mode, version.until = mode, until

    def _add(self, key: str, body: bytes | None) -> Version:
        found = self.versions.setdefault(key, [])
        version_id = f"v{next(self._ids):08}" if self.versioning == "Enabled" else NULL
        if version_id == NULL:
            found[:] = [version for version in found if version.id != NULL]
        found.append(Version(version_id, body, self.now()))
        return found[-1]

    def _refuse_to_replace(self, key: str) -> None:
        """Refuse to lose a locked version. With versioning on, nothing is lost."""
        if self.versioning != "Enabled" and (version := self.find(key, NULL)) is not None:
            self._refuse_if_locked(version, bypass=False)

    def _refuse_if_locked(self, version: Version, *, bypass: bool) -> None:
        is_retained = version.until is not None and version.until > self.now()
        if version.legal_hold or (is_retained and not (bypass and version.mode == "GOVERNANCE")):
            raise Refusal(403, "AccessDenied", LOCKED_TEXT)
