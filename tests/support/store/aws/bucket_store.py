"""A store in memory with the rules of AWS, without HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from typing_extensions import override

from cinderblock.errors import CinderblockError, ObjectLocked, ObjectNotFound, PermanentError
from cinderblock.format.range_reader import Buffer
from cinderblock.lifecycle.store.container_rules import LifecycleRule, ObjectLockRule, Versioning
from cinderblock.store.base import ObjectInfo, ObjectLock, check_body, check_key, slice_body
from cinderblock.store.memory import MemoryStore
from cinderblock.store.retention import ObjectState, Retention, Versions
from tests.support.store.aws.bucket import NULL, Bucket, Refusal, Version


@dataclass
class BucketRetention:
    """The retention of a bucket.

    Attributes:
        bucket: the bucket.
        shows_locks: whether the credentials may see locks.
        rules: the lifecycle rules.
        errors: the error that a method raises, by its name.
    """

    bucket: Bucket
    shows_locks: bool = True
    rules: tuple[LifecycleRule, ...] = ()
    errors: dict[str, CinderblockError] = field(default_factory=dict)

    def versioning(self) -> Versioning:
        """See Retention."""
        self._answer("versioning")
        return Versioning(self.bucket.versioning or Versioning.OFF)

    def object_lock(self) -> ObjectLockRule | None:
        """See Retention."""
        self._answer("object_lock")
        if self.bucket.default is None:
            return ObjectLockRule() if self.bucket.has_lock else None
        return ObjectLockRule(self.bucket.default[0], f"{self.bucket.default[1].days} days")

    def lifecycle(self) -> tuple[LifecycleRule, ...]:
        """See Retention."""
        self._answer("lifecycle")
        return self.rules

    def versions(self, prefix: str, limit: int, /) -> Versions:
        """See Retention."""
        self._answer("versions")
        found = [
            key
            for key, versions in sorted(self.bucket.versions.items())
            for version in versions[:-1]
            if key.startswith(prefix) and not version.is_marker
        ]
        return Versions(tuple(found[:limit]), len(found) > limit)

    def inspect(self, key: str, /) -> ObjectState:
        """See Retention."""
        self._answer("inspect")
        version = self.bucket.current(key)
        if version is None or version.is_marker:
            return ObjectState(exists=False, is_hidden=version is not None)
        is_null_version = bool(self.bucket.versioning) and version.id == NULL
        state = ObjectState(exists=True, is_version=version.id != NULL, is_null_version=is_null_version)
        if not self.shows_locks:
            return state
        return replace(state, retained_until=version.until, has_legal_hold=version.legal_hold, lock_mode=version.mode)

    def _answer(self, method: str) -> None:
        if method in self.errors:
            raise self.errors[method]


class BucketStore(MemoryStore):
    """A bucket as a store."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__()
        self.bucket = bucket
        self.kept = BucketRetention(bucket)

    @property
    @override
    def retention(self) -> Retention:
        return self.kept

    @override
    def put(self, key: str, body: Buffer, lock: ObjectLock | None = None) -> None:
        if lock is not None and not self.bucket.has_lock:
            raise PermanentError("Bucket is missing Object Lock Configuration")
        asked = Version("", b"", self.bucket.now(), lock.mode.value, lock.until) if lock is not None else None
        try:
            self.bucket.put(check_key(key), bytes(check_body(key, body)), asked)
        except Refusal as error:
            raise ObjectLocked(f"Cannot replace an object: {error.message}") from error

    @override
    def create(self, key: str, body: Buffer) -> bool:
        if self.bucket.current(check_key(key)) is not None:
            return False
        self.put(key, body)
        return True

    @override
    def set_lock(self, key: str, lock: ObjectLock) -> None:
        if not self.bucket.has_lock:
            raise PermanentError("Bucket is missing Object Lock Configuration")
        version = self.bucket.current(check_key(key))
        if version is None or version.is_marker:
            raise ObjectNotFound(f"Cannot lock {key}: the object does not exist.")
        try:
            self.bucket.set_lock(version, lock.mode.value, lock.until, bypass=False)
        except Refusal as error:
            raise ObjectLocked(f"Cannot shorten a lock: {error.message}") from error

    @override
    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        version = self.bucket.current(check_key(key))
        if version is None or version.body is None:
            raise ObjectNotFound(f"Cannot read {key}: the object does not exist.")
        return slice_body(version.body, start, length)

    @override
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        found = [ObjectInfo(key, len(version.body or b"")) for key, version in self.bucket.listed(prefix)]
        return iter(found)

    @override
    def delete(self, keys: Iterable[str]) -> None:
        """Delete what is not locked, like DeleteObjects, and raise for the rest."""
        refused = []
        for key in keys:
            try:
                self.bucket.delete(check_key(key))
            except Refusal as error:
                refused.append(error)
        if refused:
            raise ObjectLocked(f"Cannot delete an object: {refused[0].message}")
