"""The Protocol of every store and every wrapper; tests/contract runs one suite on all of them.

A store must keep these promises. An object appears whole or not at all. After ``put`` has returned, ``get`` and
``list`` find the object at once (S3 since 2020). Listings are in the order of the keys' bytes. Calls are synchronous,
and several threads may make them at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from cinderblock.api.v1alpha1.store import LockMode
from cinderblock.errors import InvalidInput, TooLarge
from cinderblock.store.retention import Retention

Body = bytes | bytearray | memoryview
"""The bytes of an object, in memory."""

BODY_LIMIT: Final = 5 * 1024**3
"""Bytes of the largest object that every S3 server takes in one request (S3 API: PutObject)."""

READ_LIMIT: Final = 256 * 1024**2
"""Most bytes that one call reads if it does not say how many it wants."""

DELETE_BATCH_KEYS: Final = 1000
"""Most keys in one request to delete (S3 API: DeleteObjects)."""

KEY_LIMIT: Final = 1024
"""Characters of the longest key (S3 API: object key names)."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object in a listing.

    Attributes:
        key: its key.
        size: its size in bytes.
        modified: when it was last written, by the clock of the server; None: the store does not tell.
    """

    key: str
    size: int
    modified: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ObjectLock:
    """A lock of one object (S3: Object Lock).

    Attributes:
        mode: who may lift it.
        until: when it ends, with time zone; servers keep whole seconds.
    """

    mode: LockMode
    until: datetime


class ObjectStore(Protocol):
    """One container of objects.

    Raises, from every method: StoreUnreachable (try again; StoreTooSlow if the call has used up its time), AccessDenied
    (credentials), ContainerNotFound, PermanentError (the endpoint is not S3, or refuses for good), and InvalidInput (an
    impossible key). Each message names the endpoint and the container.
    """

    def check(self) -> None:
        """Make sure that the container exists and may be listed. Create it if the store was opened to do so.

        This may be repeated.
        """

    def put(self, key: str, body: Body, lock: ObjectLock | None = None) -> None:
        """Store ``body`` as the object ``key``, and replace an earlier object. This may be repeated.

        Args:
            key: of the object.
            body: its bytes.
            lock: until when the store must keep it; None: no lock. The container must have Object Lock.

        Raises InvalidInput if the body has more than BODY_LIMIT bytes.
        """

    def create(self, key: str, body: Body) -> bool:
        """Store ``body`` as the object ``key`` unless it exists. Return whether this call may have stored it.

        After a lost answer, a repeated call finds its own object. A server without conditional writes replaces the
        object. So the caller reads it afterwards. Raises as `put` does.
        """

    def set_lock(self, key: str, lock: ObjectLock) -> None:
        """Set or extend the lock of the current object ``key``. This may be repeated.

        Raises ObjectLocked if the object has a longer or a stricter lock; ObjectNotFound; AccessDenied without the
        permission s3:PutObjectRetention; PermanentError if the container has no Object Lock.
        """

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read ``length`` bytes from ``start`` (None: to the end, at most READ_LIMIT bytes).

        A negative ``start`` counts from the end; in a shorter object it means the beginning. The result is shorter if
        the object ends earlier, and empty if it ends before ``start``. It is never longer, and a store that sends more
        fills no memory. Raises ObjectNotFound; PermanentError if there is more than READ_LIMIT to the end.
        """

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List the objects whose key begins with ``prefix``, in order of key. An error in the middle is raised."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; a key without an object is not an error. This may be repeated.

        Some of the objects may be gone when an error is raised.
        """

    @property
    def retention(self) -> Retention:
        """The calls about what the container keeps of deleted objects. No other call depends on them."""

    def close(self) -> None:
        """Close all connections. The caller that opened the store closes it."""


def check_key(key: str) -> str:
    """Return ``key`` itself. Raises InvalidInput for an impossible key.

    Such a key is empty, too long, not printable ASCII, or has a part that is empty, ``.`` or ``..``. HTTP clients
    resolve such parts, so the key could reach into another container.
    """
    legal = 0 < len(key) <= KEY_LIMIT and key.isascii() and key.isprintable()
    if not legal or not {"", ".", ".."}.isdisjoint(key.split("/")):
        raise InvalidInput(
            f"Cannot use {key!r} as an object key: it is empty, too long, or has illegal characters or parts."
        )
    return key


def check_body(key: str, body: Body) -> memoryview:
    """Return a view of ``body`` as bytes. Raises InvalidInput if it is too large for one object."""
    view = memoryview(body).cast("B")
    if view.nbytes > BODY_LIMIT:
        raise InvalidInput(
            f"Cannot store {key}: it has {view.nbytes} bytes, and an object may have at most {BODY_LIMIT}."
        )
    return view


def slice_body(whole: Body, start: int, length: int | None) -> bytes:
    """Return what ``get`` must return for an object whose content is ``whole``."""
    size = len(whole)
    first = min(start, size) if start >= 0 else max(size + start, 0)
    if length is None and size - first > READ_LIMIT:
        raise TooLarge(f"Cannot read {size - first} bytes at once: at most {READ_LIMIT} are read without a length.")
    return bytes(whole[first : size if length is None else first + length])
