"""Find locked objects of a backup before a deletion begins, so that no lock leaves half of a backup.

A server refuses a plain deletion of a locked object only if the deletion would lose it. While versioning is on, a
deletion hides every object, locked or not. While it is suspended, a deletion replaces the version "null".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice
from typing import Final, Protocol, TypeVar

from cinderblock.errors import CinderblockError, ObjectLocked, StoreUnreachable
from cinderblock.lifecycle.store.container_rules import LifecycleRule, ObjectLockRule, Versioning
from cinderblock.store.deadline import with_current
from cinderblock.store.retention import ObjectState, Retention, Versions

T = TypeVar("T")

CONCURRENT_LOOKS: Final = 8
"""Objects that are checked at once. Each takes one small request, so latency is what counts."""
_BATCH_OBJECTS: Final = 64
CHECKED_PACKS: Final = 50_000
"""Packs that are checked at most: those of 1.1 TiB. With 10 ms for each, that takes a minute."""
CHECKED_PACKS_UNSURE: Final = 256
"""The same if the server does not tell whether the container has Object Lock. The permission for that is optional, so
this is a usual case, and it costs 3.2 s at 100 ms for each pack."""
_LOOKS_AFTER_REFUSAL: Final = 64
"""Remaining objects in which the end of a lock is searched after the server has refused a deletion."""


class HasRetention(Protocol):
    """A store, as far as locks are concerned."""

    @property
    def retention(self) -> Retention:
        """See ObjectStore."""


class RulesReadOnce:
    """A retention that asks for the rules of its container once, for the removal of many backups.

    Only one thread at a time should ask first; several only cost more requests.
    """

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        self._answers: dict[str, object] = {}

    @property
    def retention(self) -> Retention:
        """See ObjectStore."""
        return self

    def versioning(self) -> Versioning:
        """See Retention."""
        return self._once("versioning", self._retention.versioning)

    def object_lock(self) -> ObjectLockRule | None:
        """See Retention."""
        return self._once("object lock", self._retention.object_lock)

    def lifecycle(self) -> tuple[LifecycleRule, ...]:
        """See Retention."""
        return self._retention.lifecycle()

    def versions(self, prefix: str, limit: int, /) -> Versions:
        """See Retention."""
        return self._retention.versions(prefix, limit)

    def inspect(self, key: str, /) -> ObjectState:
        """See Retention."""
        return self._retention.inspect(key)

    def _once(self, rule: str, ask: Callable[[], T]) -> T:
        """Return the first answer, or raise the first refusal. An outage is no answer."""
        if rule not in self._answers:
            try:
                self._answers[rule] = ask()
            except StoreUnreachable:
                raise
            except CinderblockError as error:
                self._answers[rule] = error
        answer = self._answers[rule]
        if isinstance(answer, CinderblockError):
            raise answer
        return answer  # type: ignore[return-value]


def check_locks(
    store: HasRetention, manifest: str, packs: Iterable[str], now: datetime, *, counts_always: bool = False
) -> None:
    """Raise ObjectLocked if the server would refuse to delete the manifest or one of the packs.

    This takes two requests. It takes one more for each pack only in a container that may have Object Lock, and in which
    a deletion does not hide objects. A lock that the credentials may not see, or of a later pack, is found when the
    server refuses the deletion.

    Args:
        store: holds the objects.
        manifest: key of the manifest.
        packs: keys of the packs; read only if they may be locked.
        now: the present instant.
        counts_always: whether a lock of the manifest counts even if a deletion would only hide it. Packs are locked for
            at least as long as the manifest that lists them.

    Raises what the store raises while it does not answer.
    """
    retention = store.retention
    state = retention.inspect(manifest)
    if counts_always and state.is_locked(now):
        raise locked(manifest, state)
    if _is_hidden_by_deletion(retention, state):
        return
    if not state.is_version and state.is_locked(now):
        raise locked(manifest, state)
    for key, found in _inspect_all(retention, islice(packs, _checked_packs(retention, state))):
        if not found.is_version and found.is_locked(now):
            raise locked(key, found)


def with_effect(error: ObjectLocked, effect: str) -> ObjectLocked:
    """Return the error with what the deletion has done so far."""
    told = ObjectLocked(f"{error.message.removesuffix('.')}. {effect}")
    told.until = error.until
    return told


def find_lock(store: HasRetention, keys: Iterable[str], now: datetime) -> ObjectLocked | None:
    """Return the error about the first locked object among a few that remain after a refusal; None: none is seen."""
    for key, found in _inspect_all(store.retention, islice(keys, _LOOKS_AFTER_REFUSAL)):
        if found.is_locked(now):
            return locked(key, found)
    return None


def locked(key: str, state: ObjectState) -> ObjectLocked:
    """Return the error about a locked object: what to do, and when its retention ends."""
    until = state.retained_until
    if state.has_legal_hold:
        error = ObjectLocked(f"The store keeps {key} under a legal hold. Lift it so that the deletion can continue")
    else:
        end = " until a date that cannot be read" if state.has_unknown_end else ""
        end = f" until {until:%Y-%m-%dT%H:%M:%SZ}" if until is not None else end
        error = ObjectLocked(f"Object Lock keeps {key} in the store{end}")
        error.until = until
    return error


def _is_hidden_by_deletion(retention: Retention, state: ObjectState) -> bool:
    """Return whether a deletion hides the manifest, and therefore the packs as well.

    The version of the manifest does not show the present versioning, and packs may be older than versioning.
    """
    if not (state.is_version or state.is_null_version):
        return False
    try:
        return retention.versioning() is Versioning.ENABLED
    except StoreUnreachable:
        raise
    except CinderblockError:
        return state.is_version


def _checked_packs(retention: Retention, manifest: ObjectState) -> int:
    """Return how many packs must be checked. Many servers do not tell, or may not tell, if there is Object Lock."""
    try:
        return CHECKED_PACKS if retention.object_lock() is not None else 0
    except StoreUnreachable:
        raise
    except CinderblockError:
        return CHECKED_PACKS if manifest.shows_lock else CHECKED_PACKS_UNSURE


def _inspect_all(retention: Retention, keys: Iterable[str]) -> Iterator[tuple[str, ObjectState]]:
    """Return the state of each key, in batches, so that a caller can stop at the first lock."""
    remaining = iter(keys)
    with ThreadPoolExecutor(CONCURRENT_LOOKS, "locks") as pool:
        while batch := [*islice(remaining, _BATCH_OBJECTS)]:
            yield from zip(batch, pool.map(with_current(retention.inspect), batch), strict=True)
