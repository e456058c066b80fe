"""Bring back what a plan names: packs first, so that no manifest appears whose packs are still gone.

Nothing is deleted except delete markers. Where the credentials may not remove these, the old version is copied, which
needs no right to delete. If the process dies, another plan for the same time contains only what is left.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final

from cinderblock.errors import AccessDenied, ObjectLocked, PermanentError
from cinderblock.repository.rescue.plan import RescuePlan
from cinderblock.store.deadline import with_current
from cinderblock.store.versions.history import History, KeyState

CONCURRENT_OBJECTS: Final = 16
"""Objects that are brought back at once. Each takes one or two small requests."""
_BATCH_OBJECTS: Final = 256


@dataclass(slots=True)
class Rescue:
    """The result of a rescue.

    Attributes:
        revealed: objects whose delete markers were removed.
        copied: objects whose old version was copied.
        failures: why others could not be brought back, by key.
        left_out: keys of manifests of volumes with a failed pack.
    """

    revealed: int = 0
    copied: int = 0
    failures: dict[str, PermanentError] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def run_rescue(history: History, plan: RescuePlan, on_bytes: Callable[[int], None] = lambda _: None) -> Rescue:
    """Bring back everything that a plan names.

    Args:
        history: the versions of the container.
        plan: what to bring back.
        on_bytes: called with the bytes of each object that was brought back, from this thread.

    Raises TransientError if the store does not answer; what was done until then stays.
    """
    run = _Run(history, on_bytes)
    run.bring_back(plan.packs)
    failed = {_volume_of(key) for key in run.result.failures}
    ready = [state for state in plan.manifests if _volume_of(state.wanted.key) not in failed]
    run.result.left_out = [state.wanted.key for state in plan.manifests if _volume_of(state.wanted.key) in failed]
    run.bring_back(ready)
    return run.result


class _Run:
    def __init__(self, history: History, on_bytes: Callable[[int], None]) -> None:
        self.result = Rescue()
        self._history = history
        self._on_bytes = on_bytes
        self._may_remove = True
        self._lock = threading.Lock()

    def bring_back(self, states: Iterable[KeyState]) -> None:
        """Bring back some objects, several at a time."""
        remaining = iter(states)
        one = with_current(partial(self._one))
        with ThreadPoolExecutor(CONCURRENT_OBJECTS, "rescue") as pool:
            while batch := [*islice(remaining, _BATCH_OBJECTS)]:
                for state, error in zip(batch, pool.map(one, batch), strict=True):
                    if error is not None:
                        self.result.failures[state.wanted.key] = error
                    else:
                        self._on_bytes(state.wanted.size)

    def _one(self, state: KeyState) -> PermanentError | None:
        """Bring back one object. Return why that failed for good."""
        try:
            if state.markers and self._may_remove and self._reveal(state):
                return None
            self._history.copy(state.wanted)
        except PermanentError as error:
            return error
        with self._lock:
            self.result.copied += 1
        return None

    def _reveal(self, state: KeyState) -> bool:
        """Remove the delete markers above a version. Return whether the credentials may do that."""
        try:
            for version_id in state.markers:
                self._history.remove_marker(state.wanted.key, version_id)
        except (AccessDenied, ObjectLocked):
            self._may_remove = False
            return False
        with self._lock:
            self.result.revealed += 1
        return True


def _volume_of(key: str) -> str:
    """Return the volume in the key of a manifest or a pack."""
    parts = key.split("/")
    return parts[-2] if key.endswith(".manifest") else parts[-3]
