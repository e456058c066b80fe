"""Verify the structure of one backup: its whole manifest, and the presence and size of every pack that it lists.

Requests: the manifest in ranges of 4 MiB, and one LIST for each 1000 packs of the volume. Only if something is wrong,
the packs are listed again, and the footers of the other manifests are read, to find the backups that it concerns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from cinderblock.api.pins import ExpectedBackup
from cinderblock.errors import IntegrityError, ObjectNotFound, WrongKey
from cinderblock.format.crypto.keys import Keys
from cinderblock.format.manifest.reader import ManifestReader
from cinderblock.repository.progress import Progress, ProgressCallback, ignore_progress
from cinderblock.repository.verify.findings import (
    Damage,
    Findings,
    SecondLook,
    Suspects,
    add_manifest,
    find_present,
    sort_affected,
)
from cinderblock.repository.verify.manifests import (
    ManifestStates,
    VolumeManifests,
    check_sections,
    check_sizes,
    key_is_wrong,
    manifest_is_gone,
    without_traceback,
)
from cinderblock.repository.verify.volume_packs import VolumePacks
from cinderblock.store.base import ObjectStore
from cinderblock.store.counted import CountedStore


def verify_structure(
    store: ObjectStore,
    prefix: str,
    manifest: str,
    expected: ExpectedBackup,
    keys: Keys | None = None,
    *,
    on_progress: ProgressCallback = ignore_progress,
    sleep: Callable[[float], None] = time.sleep,
) -> Findings:
    """Verify the structure of a backup.

    Args:
        store, prefix: where the backup is.
        manifest: key of its manifest.
        expected: which backup it must be.
        keys: the key ring of the store; None if it has no encryption Secret.
        on_progress: called often, from this thread.
        sleep: waits for seconds.

    Raises:
        NotFound: there is no such manifest, or it was removed meanwhile.
        KeyUnavailable, UnsupportedFormat, TooLarge: the manifest cannot be read, and nothing is known about it.
        CinderblockError: the store failed.
    """
    run = _StructureRun(store, prefix, expected, keys, manifest=manifest, on_progress=on_progress, sleep=sleep)
    return run.run()


class _StructureRun:
    """The verification of the structure of one backup."""

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        expected: ExpectedBackup,
        keys: Keys | None,
        *,
        manifest: str,
        on_progress: ProgressCallback,
        sleep: Callable[[float], None],
    ) -> None:
        self._store = CountedStore(store)
        self._prefix = prefix
        self._manifest = manifest
        self._expected = expected
        self._keys = keys
        self._on_progress = on_progress
        self._sleep = sleep
        self._total = 0
        self._manifests = VolumeManifests(self._store, prefix, keys, expected, self._report)
        self._packs = VolumePacks(prefix, expected.volume_id)

    def run(self) -> Findings:
        """Verify the manifest, then its packs."""
        error = self._read_manifest()
        suspects, damage, states = Suspects(), Damage(), ManifestStates()
        present = find_present(self._store, self._prefix, self._expected.volume_id, self._packs)
        for pack in self._packs.packs():
            if not present.has(pack):
                suspects.add_missing(pack)
        if suspects.marks.count or error is not None:
            look = SecondLook(
                self._store,
                self._prefix,
                self._expected,
                manifests=self._manifests,
                packs=self._packs,
                sleep=self._sleep,
            )
            look.confirm(suspects, damage, states)
            self._manifests.check_chosen(states)
        if error is not None:
            add_manifest(damage, self._expected, self._expected.backup_id, error)
        named = damage.named()
        return Findings(
            complete=True,
            packs=self._packs.count,
            packs_verified=present.count,
            bytes_read=self._store.counts.bytes_got,
            damaged_count=damage.objects,
            damaged=tuple(key for key, _ in named),
            causes=tuple(cause for _, cause in named),
            affected_count=len(damage.affected),
            affected=sort_affected(damage.affected, self._expected, states),
            unreadable_count=len(states.unreadable),
        )

    def _report(self) -> None:
        fetched = self._store.counts.bytes_got
        self._on_progress(Progress(min(fetched, self._total), self._total, fetched))

    def _read_manifest(self) -> IntegrityError | None:
        """Read the manifest and keep its list of packs. Return why it is damaged; None: it is not.

        A damaged one is read twice: its object may have been replaced between two requests for parts of it.
        """
        return self._read_once() and self._read_once()

    def _read_once(self) -> IntegrityError | None:
        self._packs = VolumePacks(self._prefix, self._expected.volume_id)
        read = partial(self._store.get, self._manifest)
        try:
            reader = ManifestReader(read, self._keys, self._expected, self._manifest)
            check_sizes(reader.packs, self._manifest)
            self._packs.add(reader.pack_list())
            self._total = reader.summary.manifest_bytes
            check_sections(reader, lambda _chunks: self._report())
        except ObjectNotFound as error:
            raise manifest_is_gone(self._expected) from error
        except WrongKey as error:
            if not self._manifests.opens_with(error.key_id):
                raise key_is_wrong(error) from error
            return without_traceback(error)
        except IntegrityError as error:
            return without_traceback(error)
        return None
