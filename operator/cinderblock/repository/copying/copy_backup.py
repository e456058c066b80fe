"""Copy one backup to another store: verified packs first, then the manifest, then a verification of the result.

Each pack is checked in memory and written from there, so a damage of the source never reaches the copy. Objects that
the target has with the same size are not sent again: packs never change. The manifest is written last, as in a backup.

Removals may work in the target at the same time. A removal deletes a manifest, lists the other manifests, and then
deletes packs that none of them lists. So the packs are listed again after the manifest was written, and a manifest that
vanished meanwhile makes the copy start again later: see `_check_no_removal`.

If the target asks for locks, no manifest is there without them: see `locks`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from cinderblock.api.layout import manifest_key, pack_prefix
from cinderblock.api.pins import ExpectedBackup
from cinderblock.errors import (
    ForeignManifest,
    IntegrityError,
    NotFound,
    ObjectNotFound,
    TooLarge,
    TransientError,
)
from cinderblock.format.crypto.keys import Keys
from cinderblock.reasons import Reason
from cinderblock.repository.copying.locks import CopyLocks, TargetLocks
from cinderblock.repository.copying.manifest_body import ManifestBody, read_manifest_body, read_object
from cinderblock.repository.inherited import MARK
from cinderblock.repository.objects import list_manifests, list_pack_objects, mark_key
from cinderblock.repository.progress import Progress, ProgressCallback, ignore_progress
from cinderblock.repository.verify.bounded_map import map_bounded
from cinderblock.repository.verify.findings import find_present
from cinderblock.repository.verify.pack_check import WHOLE_BYTES, PackChecker
from cinderblock.repository.verify.structure import verify_structure
from cinderblock.repository.verify.volume_packs import PackId
from cinderblock.store.base import ObjectStore

COPY_THREADS: Final = 3
"""Packs that are copied at once, each of 24 MiB in memory: as many as a backup uploads at once."""


@dataclass(frozen=True, slots=True)
class CopyPlace:
    """A store that backups are copied from or to.

    Attributes:
        store: the store.
        prefix: of its keys.
        keys: its key ring; None: it has no encryption Secret.
    """

    store: ObjectStore
    prefix: str
    keys: Keys | None


@dataclass(frozen=True, slots=True)
class CopiedBackup:
    """The result of a successful copy.

    Attributes:
        packs: number of packs that the backup lists, in its own name and in that of ancestors.
        bytes_sent: bytes that were written to the target, without those that it had already.
        locked_until: until when the target keeps the manifest, as it says itself; None: it is not locked.
    """

    packs: int
    bytes_sent: int
    locked_until: datetime | None = None


def copy_backup(
    source: CopyPlace,
    target: CopyPlace,
    expected: ExpectedBackup,
    *,
    locks: TargetLocks | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> CopiedBackup:
    """Copy a backup, and verify the structure of the copy with the keys of the target. This may be repeated.

    Args:
        source, target: the two stores.
        expected: the backup, with everything that is known about its manifest.
        locks: the locks that the target asks for; None: none.
        on_progress: called often, from this thread.

    Raises:
        NotFound: the source has no manifest of the backup (ManifestMissing).
        IntegrityError: an object of the source is damaged or missing, or the target has another manifest in its place.
        KeyUnavailable, UnsupportedFormat, TooLarge: the source or the copy cannot be read.
        LockNotExtended: the target refuses to lock a pack for long enough. It has no new manifest then.
        TransientError: something was removed in the target meanwhile (Overtaken), or a store does not answer.
        CinderblockError: a store failed.
    """
    return _CopyRun(source, target, expected, locks or TargetLocks(target.store, None), on_progress).run()


class _CopyRun:
    """The copy of one backup."""

    def __init__(
        self,
        source: CopyPlace,
        target: CopyPlace,
        expected: ExpectedBackup,
        locks: TargetLocks,
        on_progress: ProgressCallback,
    ) -> None:
        self._source = source
        self._target = target
        self._expected = expected
        self._target_locks = locks
        self._on_progress = on_progress
        self._checker = PackChecker(source.store)
        self._sent = 0

    def run(self) -> CopiedBackup:
        """Copy packs, the manifest and marks, then verify."""
        manifest = self._read_manifest()
        before = self._manifests_of_target()
        locks = self._target_locks.of_copy(self._manifest_key(self._target))
        try:
            self._send_packs(manifest, locks)
        except IntegrityError as error:
            if not self._is_deleted_meanwhile():
                raise
            self._mark_leftovers(before)
            raise NotFound(
                f"Cannot copy backup {self._expected.backup_id}: it was deleted meanwhile.",
                reason=Reason.MANIFEST_MISSING,
            ) from error
        locks.lock_packs(self._pack_key(manifest, pack) for pack in manifest.packs.packs())
        self._send_manifest(manifest, locks)
        self._mark_ancestors(manifest)
        self._check_no_removal(before)
        self._verify()
        return CopiedBackup(len(manifest.packs), self._sent, locks.end())

    def _read_manifest(self) -> ManifestBody:
        source = self._source
        try:
            return read_manifest_body(source.store, source.prefix, source.keys, self._expected)
        except NotFound:
            self._mark_leftovers(self._manifests_of_target())
            raise

    def _manifests_of_target(self) -> frozenset[str]:
        """Return the ids of the volume's backups that have a manifest in the target."""
        found = list_manifests(self._target.store, self._target.prefix, self._expected.volume_id)
        return frozenset(item.backup_id for item in found)

    def _send_packs(self, manifest: ManifestBody, locks: CopyLocks) -> None:
        """Copy the packs that the target lacks, or has with another size."""
        packs, target, volume_id = manifest.packs, self._target, self._expected.volume_id
        present = find_present(target.store, target.prefix, volume_id, packs)
        total = sum(packs.size(pack) for pack in packs.packs())
        done = sum(packs.size(pack) for pack in present.packs())
        self._on_progress(Progress(done, total, self._sent))
        missing = (pack for pack in packs.packs() if not present.has(pack))
        send: Callable[[PackId], int] = partial(self._send_pack, manifest, locks)
        for _, size in map_bounded(send, missing, COPY_THREADS):
            done += size
            self._sent += size
            self._on_progress(Progress(done, total, self._sent))

    def _send_pack(self, manifest: ManifestBody, locks: CopyLocks, pack: PackId) -> int:
        body = self._read_pack(manifest, pack)
        locks.put_pack(self._pack_key(manifest, pack), body)
        return len(body)

    def _pack_key(self, manifest: ManifestBody, pack: PackId) -> str:
        """Return the key of a pack in the target."""
        backup_id = manifest.packs.origin(pack).backup_id
        return pack_prefix(self._target.prefix, self._expected.volume_id, backup_id) + manifest.packs.name(pack)

    def _read_pack(self, manifest: ManifestBody, pack: PackId) -> bytes:
        """Return the bytes of a pack, verified. A damaged one is read twice, to exclude the network."""
        key, size = manifest.packs.key(pack), manifest.packs.size(pack)
        if size > WHOLE_BYTES:
            raise TooLarge(f"Cannot copy {key}: it has {size} bytes, and a pack is at most {WHOLE_BYTES} bytes long.")
        sealer, recorded = manifest.sealer(pack), manifest.recorded_in(pack)
        for is_last in (False, True):
            try:
                body = self._source.store.get(key, 0, size + 1)
                self._checker.check_body(body, sealer, size, recorded)
            except ObjectNotFound as error:
                raise IntegrityError(f"Cannot copy the backup: {key} is missing, and its data is lost.") from error
            except IntegrityError:
                if is_last:
                    raise
            else:
                return body
        raise AssertionError("the loop returns or raises")

    def _send_manifest(self, manifest: ManifestBody, locks: CopyLocks) -> None:
        """Write the manifest with its lock. If the target has the same one, only extend its lock.

        If only the header differs, the key was re-wrapped in one of the stores. Then the manifest is replaced, unless
        the target lacks the key of the source and may have a key of its own. Other content is never replaced.
        """
        key = self._manifest_key(self._target)
        try:
            present = read_object(self._target.store, key)
        except ObjectNotFound:
            present = None
        if present is not None and present != manifest.body:
            self._check_same_backup(present, manifest, key)
        if present is not None and (present == manifest.body or not manifest.opens_with(self._target.keys)):
            locks.extend_manifest()
            return
        self._target.store.put(key, manifest.body, locks.of_manifest)
        self._sent += len(manifest.body)

    def _check_same_backup(self, present: bytes, manifest: ManifestBody, key: str) -> None:
        size = len(manifest.body) - len(manifest.content)
        if memoryview(present)[size:] != manifest.content:
            raise ForeignManifest(
                f"Cannot copy backup {self._expected.backup_id}: the target has another manifest at {key}. It is not"
                " replaced. Find out who wrote it."
            )

    def _mark_ancestors(self, manifest: ManifestBody) -> None:
        """Mark packs of backups without a manifest in the target as inherited, so that somebody deletes them one day.

        This comes after the manifest that lists them: before, a removal would take marked packs for unneeded ones.
        """
        with_manifest = self._manifests_of_target()
        for backup_id in sorted(manifest.ancestors(self._expected.backup_id) - with_manifest):
            self._target.store.put(mark_key(self._target.prefix, self._expected.volume_id, backup_id), MARK)

    def _mark_leftovers(self, with_manifest: frozenset[str]) -> None:
        """Mark what an earlier attempt has copied of a backup that is gone, so that the next removal deletes it."""
        target, backup_id = self._target, self._expected.backup_id
        if backup_id in with_manifest:
            return
        packs = list_pack_objects(target.store, target.prefix, self._expected.volume_id, backup_id)
        if next(packs, None) is not None:
            target.store.put(mark_key(target.prefix, self._expected.volume_id, backup_id), MARK)

    def _check_no_removal(self, before: frozenset[str]) -> None:
        """Check that each manifest that was there before the packs were listed is still there.

        Otherwise a removal has begun, which may have listed the manifests before this one was written. It may delete
        packs that this one lists at any time. A later attempt sends them again.
        """
        gone = before - self._manifests_of_target()
        if gone:
            raise TransientError(
                f"Cannot copy backup {self._expected.backup_id}: backup {min(gone)} was removed from the target at the"
                " same time. The copy is completed later.",
                reason=Reason.OVERTAKEN,
            )

    def _verify(self) -> None:
        target = self._target
        found = verify_structure(target.store, target.prefix, self._manifest_key(target), self._expected, target.keys)
        if found.damaged_count:
            raise TransientError(
                f"Cannot copy backup {self._expected.backup_id}: the copy is not complete. {found.causes[0]}",
                reason=Reason.OVERTAKEN,
            )

    def _is_deleted_meanwhile(self) -> bool:
        try:
            self._source.store.get(self._manifest_key(self._source), 0, 1)
        except ObjectNotFound:
            return True
        return False

    def _manifest_key(self, place: CopyPlace) -> str:
        return manifest_key(place.prefix, self._expected.volume_id, self._expected.backup_id)
