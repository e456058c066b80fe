"""The versions of the objects of a container, and what a key held at an earlier time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Final, Protocol

MAX_MARKERS: Final = 100
"""Delete markers of a key that are remembered. With more of them, the old version is copied instead."""


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """A version of an object, or a delete marker.

    Attributes:
        key: of the object.
        version_id: names the version among those of the key.
        modified: when it was written, by the clock of the server. Most servers tell whole seconds.
        size: its bytes; 0 for a marker.
        is_marker: whether it is a delete marker.
        is_latest: whether it is what readers see now.
        etag: stands for its content; empty for a marker.
    """

    key: str
    version_id: str
    modified: datetime
    size: int = 0
    is_marker: bool = False
    is_latest: bool = False
    etag: str = ""

    def has_content_of(self, other: ObjectVersion) -> bool:
        """Return whether this is a copy of another version. A copy of what was uploaded in parts is not recognized."""
        return not self.is_marker and self.etag != "" and (self.etag, self.size) == (other.etag, other.size)


@dataclass(frozen=True, slots=True)
class KeyState:
    """The object of a key at an instant, and whether readers still see it.

    Attributes:
        wanted: the version that readers saw at the instant.
        is_current: whether they still see it, or a copy of it.
        markers: ids of the delete markers above it; empty if something else is above it, too.
    """

    wanted: ObjectVersion
    is_current: bool
    markers: tuple[str, ...] = ()


class VersionPages(Protocol):
    """The requests about the versions of one container, each of which may fail for a while.

    Raises, from every method, what `ObjectStore` raises. PermanentError also means that the server knows no versions.
    """

    def page(self, prefix: str, marker: tuple[str, str]) -> tuple[list[ObjectVersion], tuple[str, str] | None]:
        """Return a page of a listing, in order of key, then new to old; and where the next one begins.

        Versions and markers of the same second are in no order. Needs s3:ListBucketVersions.

        Args:
            prefix: of the keys.
            marker: key and version id before the page; empty at the beginning.
        """

    def get(self, key: str, version_id: str, start: int = 0, length: int | None = None) -> bytes:
        """See History."""

    def copy(self, version: ObjectVersion) -> None:
        """See History."""

    def remove_marker(self, key: str, version_id: str) -> None:
        """See History."""


class History(Protocol):
    """The versions of one container. Raises, from every method, what `VersionPages` raises."""

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        """List all versions and delete markers of keys that begin with ``prefix``, in order of key.

        Needs s3:ListBucketVersions.
        """

    def get(self, key: str, version_id: str, start: int = 0, length: int | None = None) -> bytes:
        """Read a version like `ObjectStore.get`. Needs s3:GetObjectVersion."""

    def copy(self, version: ObjectVersion) -> None:
        """Make a copy of an old version the current one, with its lock if that has not ended. This may be repeated.

        Needs s3:GetObjectVersion and s3:PutObject, and for a lock s3:GetObjectRetention and s3:PutObjectRetention.
        """

    def remove_marker(self, key: str, version_id: str) -> None:
        """Remove a delete marker. This may be repeated. Needs s3:DeleteObjectVersion."""

    def close(self) -> None:
        """Close all connections."""


def states_at(versions: Iterable[ObjectVersion], instant: datetime) -> Iterator[KeyState]:
    """Yield the state of each key that readers saw at an instant. ``versions`` are in order of key."""
    for _, of_key in groupby(versions, key=lambda version: version.key):
        state = _state_at(of_key, instant)
        if state is not None:
            yield state


def _state_at(versions: Iterable[ObjectVersion], instant: datetime) -> KeyState | None:
    """Return the state of one key; None: readers saw nothing. Only some markers are held, however many there are."""
    wanted: ObjectVersion | None = None
    latest: ObjectVersion | None = None
    above: list[ObjectVersion] = []
    only_markers = True
    for version in versions:
        latest = version if version.is_latest else latest
        if version.modified.replace(microsecond=0) > instant:
            only_markers = only_markers and version.is_marker and len(above) < MAX_MARKERS
            above += [version] if only_markers else []
        elif wanted is None or _is_newer(version, wanted):
            wanted = version
    if wanted is None or wanted.is_marker:
        return None
    is_current = latest is not None and (latest == wanted or latest.has_content_of(wanted))
    return KeyState(wanted, is_current, tuple(marker.version_id for marker in above) if only_markers else ())


def _is_newer(version: ObjectVersion, other: ObjectVersion) -> bool:
    """Return whether a version is newer. In the same second, a current version wins, and then one with content."""
    return (version.modified, version.is_latest, not version.is_marker) > (
        other.modified,
        other.is_latest,
        not other.is_marker,
    )
