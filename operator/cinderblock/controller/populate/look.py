"""Look for the backup of a claim in a store, a few seconds of work at a time, so that no look holds a worker for long.

The store alone is asked: one listing, one manifest of each volume, and all manifests of volumes that count. Read
manifests are remembered, so that replicas of a StatefulSet, and repeated looks, read them once. A loss costs reads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from cinderblock.api.v1alpha1.restore_source import RestoreSource
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context
from cinderblock.controller.imports.read import BATCH_MANIFESTS, Found, ManifestMemory, ManifestReader
from cinderblock.controller.request import ObjectKey
from cinderblock.errors import CinderblockError, Conflict, KubeUnavailable, NotLeading, StoreBusy
from cinderblock.kube import kinds
from cinderblock.lifecycle.imports.difference import MAX_BACKUPS
from cinderblock.lifecycle.imports.records import ReadManifest, StoredManifest, UnreadManifest
from cinderblock.lifecycle.populate.choice import CannotTell, Looking, Outcome, Wanted, choose, samples
from cinderblock.lifecycle.store import place
from cinderblock.reasons import Reason

STEP_SECONDS: Final = 3.0
"""Seconds after which a step leaves the rest to the next one. Meanwhile other objects get the worker."""
MAX_LOOKS: Final = 2
"""Looks in memory at the same time, of different namespaces, each with up to 30 MiB of records. The others wait."""
TURN_SECONDS: Final = 5.0
"""Seconds until a look that waits for its turn, or for calls of others to its store, tries again."""
MAX_AGE_SECONDS: Final = 600.0
"""Age from which a listing counts no more."""


@dataclass(slots=True)
class _Look:
    """One look into a store.

    Attributes:
        namespace: namespace of the claim.
        began: when its listing began, by the clock of the event loop.
        identity: what it was made for; another one makes it worthless.
        stored: number of all manifests.
        waiting: manifests that are read only if their volume counts, by volume id, the next one first.
        unread: manifests to read.
        found: results.
    """

    namespace: str
    began: float
    identity: str
    stored: int
    waiting: dict[str, deque[StoredManifest]]
    unread: deque[StoredManifest] = field(default_factory=deque)
    found: list[Found] = field(default_factory=list)

    def add(self, found: Found, wanted: Wanted) -> None:
        """Add a result. A volume that counts is read wholly, and so is one whose manifests cannot be read."""
        self.found.append(found)
        volume = found.stored.volume_id
        if isinstance(found, ReadManifest) and not wanted.matches(found):
            self.waiting.pop(volume, None)
        else:
            self.unread.extend(self.waiting.pop(volume, ()))


class Looks:
    """The looks into stores that have not ended. For one event loop."""

    def __init__(self) -> None:
        self._looks: dict[str, _Look] = {}
        self._working: dict[str, str] = {}
        """Namespaces of claims for which a step runs, by their UIDs: its listing is in memory as well."""
        self._memory = ManifestMemory()

    def forget(self, claim_uid: str) -> None:
        """Forget the look for a claim."""
        self._looks.pop(claim_uid, None)

    async def step(
        self, context: Context, claim_uid: str, store: BackupStore, source: RestoreSource, wanted: Wanted
    ) -> Outcome:
        """Move the look for a claim one step forward, and return its result.

        Raises what the API server raises if it does not answer. The result tells all other errors.
        """
        if not self._has_turn(claim_uid, source.namespace):
            return Looking("The operator looks for the backups of other claims first.", TURN_SECONDS)
        if not place.is_known(store):
            return CannotTell(Reason.STORE_NOT_FOUND, f"The settings of BackupStore {store.name} are not known.")
        self._working[claim_uid] = source.namespace
        try:
            return await self._step(context, claim_uid, store, source, wanted)
        except StoreBusy:
            return Looking("Other calls to the store come first.", TURN_SECONDS)
        except (Conflict, KubeUnavailable, NotLeading):
            raise
        except CinderblockError as error:
            self.forget(claim_uid)
            return CannotTell(error.reason, f"BackupStore {store.name}: {error.message.rstrip('.')}.")
        finally:
            self._working.pop(claim_uid, None)

    def _has_turn(self, claim_uid: str, namespace: str) -> bool:
        """Return whether a claim may look. A slow store of one namespace must not keep the others waiting.

        A look that is too old ends, also that of the claim itself: then the others come first.
        """
        now = asyncio.get_running_loop().time()
        too_old = [uid for uid, look in self._looks.items() if now - look.began > MAX_AGE_SECONDS]
        for uid in too_old:
            del self._looks[uid]
        at_work = {uid: look.namespace for uid, look in self._looks.items()} | self._working
        at_work.pop(claim_uid, None)
        return claim_uid not in too_old and len(at_work) < MAX_LOOKS and namespace not in at_work.values()

    async def _step(
        self, context: Context, claim_uid: str, store: BackupStore, source: RestoreSource, wanted: Wanted
    ) -> Outcome:
        loop = asyncio.get_running_loop()
        ends = loop.time() + STEP_SECONDS
        opened = await context.stores.open(store, store.spec.container, context.secrets)
        reader = ManifestReader(opened, store, await context.stores.keys(store, context.secrets))
        identity = f"{store.uid} {store.spec.model_dump_json()} {source.uid} {sorted(reader.key_ids)}"
        look = self._looks.get(claim_uid)
        if look is None or look.identity != identity:
            look = await _begin(context, reader, identity, wanted, source.namespace)
            self._looks[claim_uid] = look
        if look.stored > MAX_BACKUPS:
            self.forget(claim_uid)
            return CannotTell(Reason.TOO_MANY_BACKUPS, f"The store holds more than {MAX_BACKUPS} backups.")
        while look.unread and loop.time() < ends:
            await self._read(context, reader, look, store, wanted)
        if look.unread:
            return Looking(f"Up to {look.stored} manifests of the store are being read.")
        self.forget(claim_uid)
        return choose(look.found, look.stored, wanted, source.spec.select, context.clock())

    async def _read(
        self, context: Context, reader: ManifestReader, look: _Look, store: BackupStore, wanted: Wanted
    ) -> None:
        """Read some manifests, except those that were read before and have not changed."""
        now, key = asyncio.get_running_loop().time(), ObjectKey(kinds.BACKUP_STORE.kind, store.namespace, store.name)
        batch = list(islice(look.unread, BATCH_MANIFESTS))
        remembered = [self._memory.find(key, stored, reader.key_ids, now) for stored in batch]
        new = [stored for stored, known in zip(batch, remembered, strict=True) if known is None]
        read = await reader.read(context, new) if new else []
        for found in read:
            self._memory.keep(key, found, reader.key_ids, now)
        for _ in batch:
            look.unread.popleft()
        results = [*(known for known in remembered if known is not None), *read]
        for result in (*results, *_vanished(batch, results)):
            look.add(result, wanted)


def _vanished(batch: Sequence[StoredManifest], found: Sequence[Found]) -> list[Found]:
    """Return the listed manifests that the store did not find. A later listing tells whether they were deleted."""
    keys = {result.stored.key for result in found}
    message = "The store listed it and did not find it."
    return [UnreadManifest(stored, Reason.CANNOT_TELL, message) for stored in batch if stored.key not in keys]


async def _begin(context: Context, reader: ManifestReader, identity: str, wanted: Wanted, namespace: str) -> _Look:
    """List the store. The last manifest of each volume is read first."""
    began = asyncio.get_running_loop().time()
    listed = await reader.list_all(context)
    by_volume = samples(stored for stored in listed if wanted.may_be(stored.volume_id))
    look = _Look(namespace, began, identity, len(listed), {})
    for volume, manifests in by_volume.items():
        look.unread.append(manifests[0])
        if manifests[1:]:
            look.waiting[volume] = deque(manifests[1:])
    return look
