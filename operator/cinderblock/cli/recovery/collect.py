"""Read a bucket for a recovery. Each manifest is read once, some at a time, and only a few of each volume are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from datetime import datetime
from typing import Final

from cinderblock.cli.import_manifests import namespace_of
from cinderblock.errors import InvalidInput, KeyUnavailable, NotFound, PermanentError, SealBroken
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.lifecycle.imports.names import ImportNames, import_id
from cinderblock.lifecycle.recovery.candidate import Candidate, Contents, StoredId, candidate_of
from cinderblock.lifecycle.recovery.cluster_view import ClaimKey
from cinderblock.lifecycle.recovery.survey import Survey, Unreadable, VolumeBackups
from cinderblock.repository.catalog import Catalog, CatalogEntry
from cinderblock.repository.objects import BackupRef
from cinderblock.repository.verify.bounded_map import map_bounded
from cinderblock.repository.verify.structure import verify_structure
from cinderblock.store.base import ObjectStore

_MESSAGE_CHARACTERS: Final = 500
VERIFIED_AT_ONCE: Final = 4
"""Backups that are verified at once. Each reads a whole manifest."""


class Collector:
    """Sorts the backups of a bucket into a `Survey`.

    Args:
        target: returns the name of a namespace in the new cluster.
        namespaces: the namespaces that count; empty: all.
        as_of: time of the newest data that counts; None: now.
        must_be_sealed: whether a backup that is not encrypted is refused.
        asked: ids of backups that were asked for.
    """

    def __init__(
        self,
        target: Callable[[str], str],
        *,
        namespaces: frozenset[str] = frozenset(),
        as_of: datetime | None = None,
        must_be_sealed: bool = False,
        asked: frozenset[str] = frozenset(),
    ) -> None:
        self._target = target
        self._namespaces = namespaces
        self._as_of = as_of
        self._must_be_sealed = must_be_sealed
        self._names = ImportNames()
        self.survey = Survey(asked=asked)

    def read(self, catalog: Catalog) -> Survey:
        """Read all manifests. Raises TooLarge, and what the store raises."""
        with closing(catalog.stream_entries(catalog.list_backups())) as entries:
            for entry in entries:
                self.add(entry)
        return self.survey

    def add(self, entry: CatalogEntry) -> None:
        """Sort one backup. Raises TooLarge."""
        error = self._error(entry)
        if error is not None:
            self.survey.add_unreadable(_unreadable(entry.stored, error), error)
            return
        try:
            candidate = self._candidate(entry)
        except InvalidInput as refused:
            self.survey.leave_out(_unreadable(entry.stored, refused))
            return
        if candidate is not None:
            self.survey.add(candidate)

    def _error(self, entry: CatalogEntry) -> PermanentError | None:
        """Return why a backup cannot be used."""
        if entry.damage is not None:
            return entry.damage
        if entry.summary is None:
            key_id = entry.header.key_id if entry.header is not None else ""
            return KeyUnavailable(f"{entry.stored.key} is encrypted with key {key_id}, which was not given")
        if self._must_be_sealed and entry.summary.header.key_id is None:
            return SealBroken(f"{entry.stored.key} is not encrypted, although a key was given")
        return None

    def _candidate(self, entry: CatalogEntry) -> Candidate | None:
        """Return a backup that can be read; None if it was not asked for. Raises InvalidInput if it has no claim."""
        summary = entry.summary
        if summary is None:
            return None
        namespace = namespace_of(summary, None)
        if self._namespaces and namespace not in self._namespaces:
            return None
        # All readable backups get names, so that they have those of `cinderblock list --as-manifests`.
        stored = entry.stored
        backup_name = summary.description.backup_name
        name = self._names.name(self._target(namespace), stored.key, stored.backup_id, backup_name)
        if self._as_of is not None and summary.description.data_timestamp > self._as_of:
            return None
        ids = StoredId(stored.key, stored.volume_id, stored.backup_id, import_id(stored.key, stored.backup_id), name)
        contents = Contents(
            content_digest=summary.pins.content_digest,
            is_sealed=summary.header.key_id is not None,
            data_bytes=summary.logical_bytes,
            unreadable_files=summary.unreadable_files,
        )
        return candidate_of(ids, summary.description, contents)


def _unreadable(stored: BackupRef, error: PermanentError) -> Unreadable:
    message = error.message[:_MESSAGE_CHARACTERS]
    return Unreadable(stored.key, stored.volume_id, stored.backup_id, stored.modified, str(error.reason), message)


def verify_newest(
    store: ObjectStore,
    prefix: str,
    keys: KeyRing | None,
    claims: Mapping[ClaimKey, list[VolumeBackups]],
    rank: Callable[[list[VolumeBackups]], list[Candidate]],
) -> dict[str, str]:
    """Verify the structure of the backups of each claim, the best first, until one is whole.

    Args:
        store, prefix: where the backups are.
        keys: the keys.
        claims: the volumes of each claim.
        rank: returns the candidates of a claim, the best first.

    Returns:
        Why backups are not whole, by key of their manifest.

    Raises what the store raises.
    """
    rejected: dict[str, str] = {}

    def check(volumes: list[VolumeBackups]) -> Iterable[tuple[str, str]]:
        found = []
        for candidate in rank(volumes):
            damage = _damage(store, prefix, keys, candidate)
            if damage is None:
                break
            found.append((candidate.stored.manifest, damage))
        return found

    for _, found in map_bounded(check, claims.values(), VERIFIED_AT_ONCE):
        rejected.update(found)
    return rejected


def _damage(store: ObjectStore, prefix: str, keys: KeyRing | None, candidate: Candidate) -> str | None:
    """Return why a backup is not whole; None if it is."""
    stored = candidate.stored
    reference = BackupRef(stored.manifest, stored.volume_id, stored.backup_id)
    expected = reference.expected(sealed=candidate.is_sealed, content_digest=candidate.content_digest)
    try:
        found = verify_structure(store, prefix, stored.manifest, expected, keys)
    except NotFound:
        return "it was removed meanwhile"
    except PermanentError as error:
        return error.message[:_MESSAGE_CHARACTERS]
    if not found.damaged_count:
        return None
    return f"{found.damaged_count} objects are damaged or missing, such as {found.damaged[0][:_MESSAGE_CHARACTERS]}"
