"""Read and write the owner marker of a store."""

from __future__ import annotations

from pydantic import ValidationError

from cinderblock.api.layout import owner_key
from cinderblock.api.owner import MAX_MARKER_BYTES, OwnerMarker
from cinderblock.errors import IntegrityError, ObjectNotFound
from cinderblock.store.base import ObjectStore


def read_owner(store: ObjectStore, prefix: str) -> OwnerMarker | None:
    """Return the owner marker; None if there is none.

    Raises IntegrityError if it is not a marker of this format, and what the store raises.
    """
    key = owner_key(prefix)
    try:
        content = store.get(key, 0, MAX_MARKER_BYTES + 1)
    except ObjectNotFound:
        return None
    try:
        return OwnerMarker.model_validate_json(content if len(content) <= MAX_MARKER_BYTES else b"")
    except ValidationError:
        raise IntegrityError(
            f"Cannot read {key}: it is not an owner marker of this release. Find out who wrote it, and delete it."
        ) from None


def create_owner(store: ObjectStore, prefix: str, marker: OwnerMarker) -> OwnerMarker | None:
    """Write the first marker, unless another cluster is faster, and return the one that is there then.

    Raises what `read_owner` and the store raise.
    """
    store.create(owner_key(prefix), _encoded(marker))
    return read_owner(store, prefix)


def replace_owner(store: ObjectStore, prefix: str, epoch: str, marker: OwnerMarker) -> OwnerMarker | None:
    """Replace the marker of this epoch, and return the one that is there then. Raises as `create_owner` does."""
    present = read_owner(store, prefix)
    if present is None or present.epoch != epoch:
        return present
    store.put(owner_key(prefix), _encoded(marker))
    return read_owner(store, prefix)


def _encoded(marker: OwnerMarker) -> bytes:
    return marker.model_dump_json(by_alias=True).encode()
