"""A stored backup from which a claim can be created again.

Its texts come from a manifest. Anybody who can write to the bucket can write an unencrypted one, so each text is
checked, and the size of all of them is limited.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import TypeAdapter, ValidationError

from cinderblock.api.meta import LabelKey, LabelValue
from cinderblock.api.mover import BackupMetadata
from cinderblock.errors import InvalidInput
from cinderblock.lifecycle.backup.origin import TOTAL_LIMIT, VALUE_LIMIT, belongs_to_tool

MAX_PAIRS: Final = 32
"""Most labels, and most annotations, that a VolumeRestore can set."""
MAX_DROPPED: Final = 50
"""Most keys of labels and annotations that are named because they are not restored."""
MAX_BYTES: Final = (1 << 63) - 1
"""Most bytes of a claim (apimachinery ``resource.Quantity``)."""
_TEXT_CHARACTERS: Final = 253
_MAX_MODES: Final = 4
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_KEY: Final = TypeAdapter[str](LabelKey)
_VALUE: Final = TypeAdapter[str](LabelValue)


@dataclass(frozen=True, slots=True)
class StoredId:
    """The names of a stored backup.

    Attributes:
        manifest: key of its manifest.
        volume_id, backup_id: ids in that key.
        import_id: id that a VolumeBackup imports it with.
        object_name: name of that VolumeBackup.
    """

    manifest: str
    volume_id: str
    backup_id: str
    import_id: str
    object_name: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backup that could be read.

    Attributes:
        stored: its names.
        namespace: namespace of the claim in the lost cluster.
        claim: name of the claim.
        data_timestamp: time of the data.
        content_digest: identity of the content.
        is_sealed: whether it is encrypted.
        size: bytes of the volume; 0 or more than MAX_BYTES: impossible.
        data_bytes: bytes of data in it.
        volume_mode: Filesystem or Block.
        storage_class: StorageClass of the claim; empty: none, or no possible name.
        access_modes: access modes of the claim.
        requested_size: size that the claim requested; empty: not recorded.
        stateful_set: StatefulSet of the claim; empty: none.
        ordinal: ordinal of the pod of the StatefulSet.
        labels, annotations: those that the new claim gets.
        dropped: keys of labels and annotations that it does not get.
        unreadable_files: number of files that the backup lacks.
    """

    stored: StoredId
    namespace: str
    claim: str
    data_timestamp: datetime
    content_digest: str
    is_sealed: bool
    size: int
    data_bytes: int
    volume_mode: str
    storage_class: str
    access_modes: tuple[str, ...]
    requested_size: str
    stateful_set: str
    ordinal: int | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    dropped: tuple[str, ...]
    unreadable_files: int

    @property
    def ids(self) -> tuple[str, str]:
        """The ids by which a person may name the backup."""
        return self.stored.backup_id, self.stored.import_id

    @property
    def age_key(self) -> tuple[datetime, str]:
        """Sort key: the newest data is the greatest."""
        return self.data_timestamp, self.stored.backup_id


@dataclass(frozen=True, slots=True)
class Contents:
    """The numbers of a manifest besides its description; see `Candidate`."""

    content_digest: str
    is_sealed: bool
    data_bytes: int
    unreadable_files: int


def candidate_of(stored: StoredId, description: BackupMetadata, contents: Contents) -> Candidate:
    """Return a backup as a candidate. Raises InvalidInput if no claim can be made of it."""
    claim = description.claim
    if not description.namespace:
        raise InvalidInput("no cluster made it: its manifest names no namespace")
    if not _is_name(description.volume_name):
        raise InvalidInput("no claim can have the name in its manifest")
    pairs = _Pairs()
    labels = pairs.keep(claim.labels if claim else {}, are_labels=True)
    annotations = pairs.keep(claim.annotations if claim else {}, are_labels=False)
    dropped = [*(claim.left_out if claim else ()), *pairs.dropped]
    return Candidate(
        stored=stored,
        namespace=description.namespace,
        claim=description.volume_name,
        data_timestamp=description.data_timestamp,
        content_digest=contents.content_digest,
        is_sealed=contents.is_sealed,
        size=_clamp(description.volume_bytes),
        data_bytes=_clamp(contents.data_bytes),
        volume_mode=description.volume_mode.value,
        storage_class=description.storage_class if _is_name(description.storage_class) else "",
        access_modes=tuple(_cut(description.access_modes[:_MAX_MODES])),
        requested_size=(claim.requested_size or "")[:_TEXT_CHARACTERS] if claim else "",
        stateful_set=(claim.stateful_set or "")[:_TEXT_CHARACTERS] if claim else "",
        ordinal=claim.ordinal if claim else None,
        labels=labels,
        annotations=annotations,
        dropped=tuple(_cut(dropped[:MAX_DROPPED])),
        unreadable_files=contents.unreadable_files,
    )


class _Pairs:
    """Chooses labels and annotations that a VolumeRestore can set. Together they have at most TOTAL_LIMIT bytes."""

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self._left = TOTAL_LIMIT

    def keep(self, pairs: Mapping[str, str], *, are_labels: bool) -> dict[str, str]:
        """Return the pairs that can be set, and note the keys of the others."""
        kept: dict[str, str] = {}
        for key, value in pairs.items():
            size = len(key.encode()) + len(value.encode())
            fits = len(kept) < MAX_PAIRS and size <= self._left and not belongs_to_tool(key)
            if fits and _is_valid(key, value, is_label=are_labels):
                kept[key] = value
                self._left -= size
            elif len(self.dropped) < MAX_DROPPED:
                self.dropped.append(key)
        return kept


def _is_valid(key: str, value: str, *, is_label: bool) -> bool:
    try:
        _KEY.validate_python(key)
        if is_label:
            _VALUE.validate_python(value)
    except ValidationError:
        return False
    return is_label or len(value) <= VALUE_LIMIT


def _is_name(text: str) -> bool:
    return len(text) <= _TEXT_CHARACTERS and _NAME.fullmatch(text) is not None


def _clamp(number: int) -> int:
    """Return a number that Python can convert to a float. Those of a manifest may have thousands of digits."""
    return max(0, min(number, MAX_BYTES + 1))


def _cut(texts: Iterable[str]) -> Iterable[str]:
    return (text[:_TEXT_CHARACTERS] for text in texts)
