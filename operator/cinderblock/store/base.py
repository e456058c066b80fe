"""The Protocol that every store and every wrapper fulfils; one contract suite tests them all.

What a store must give: an object appears whole or not at all; whoever has seen a ``put`` return finds the object with
``get`` and ``list`` at once (S3 gives this since 2020); keys list in the order of their bytes. Calls are synchronous
and may come from several threads at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from cinderblock.errors import InvalidInput
from cinderblock.format.range_reader import Buffer

BODY_LIMIT: Final = 5 * 1024**3
"""Bytes of the largest object that every S3 server takes in one request (S3 API: PutObject)."""

BATCH: Final = 1000
"""Keys in one deletion, at most (S3 API: DeleteObjects)."""

KEY_LIMIT: Final = 1024
"""Characters of the longest key (S3 API: object key names)."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object in a listing: its key and its size in bytes."""

    key: str
    size: int


class ObjectStore(Protocol):
    """One container of objects.

    Raises, from every method: StoreUnreachable (try again), AccessDenied (credentials), NotFound (the container, with
    reason ContainerNotFound; or the object of ``get``), PermanentError (the endpoint is no S3, or refuses for good),
    InvalidInput (a key that is none), each with the endpoint and container in its message.
    """

    def check(self) -> None:
        """Make sure that the container exists and may be listed; create it if the store was opened to do so.

        May be repeated.
        """

    def put(self, key: str, body: Buffer) -> None:
        """Store ``body`` as the object ``key``, replacing what was there. May be repeated.

        Raises InvalidInput if the body has more than BODY_LIMIT bytes.
        """

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read ``length`` bytes from ``start`` (None: to the end).

        A negative ``start`` counts from the end, and means the beginning where the object is shorter. Fewer bytes come
        back where the object ends earlier, none where it ends before ``start``. Raises NotFound if there is no such
        object.
        """

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key begins with ``prefix``, in order of key. An error in the middle is raised."""

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; keys without an object are no error. May be repeated.

        Some of the objects may be gone when an error is raised.
        """

    def close(self) -> None:
        """Give up connections. The caller who opened the store closes it."""


def check_key(key: str) -> str:
    """``key`` itself. Raises InvalidInput if it is empty, too long, not printable ASCII, or has a part that is
    empty, ``.`` or ``..``: HTTP clients resolve such parts, so that a key could reach into another container.
    """
    legal = 0 < len(key) <= KEY_LIMIT and key.isascii() and key.isprintable()
    if not legal or not {"", ".", ".."}.isdisjoint(key.split("/")):
        raise InvalidInput(f"{key!r} cannot be the key of an object")
    return key


def check_body(key: str, body: Buffer) -> memoryview:
    """``body`` as bytes, not copied. Raises InvalidInput if it is too large to be one object."""
    view = memoryview(body).cast("B")
    if view.nbytes > BODY_LIMIT:
        raise InvalidInput(f"{key} has {view.nbytes} bytes: an object may have at most {BODY_LIMIT}")
    return view


def slice_body(whole: Buffer, start: int, length: int | None) -> bytes:
    """What ``get`` gives of an object whose content is ``whole``."""
    size = len(whole)
    first = min(start, size) if start >= 0 else max(size + start, 0)
    return bytes(whole[first : size if length is None else first + length])
