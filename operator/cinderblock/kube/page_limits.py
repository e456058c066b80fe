"""Limits of pages where objects are large: the API server reads a whole page before it answers."""

from __future__ import annotations

from typing import Final

from cinderblock.kube.kinds import Kind

PAGE_SHRINK: Final = 8
"""Divisor of the number of objects when a page is too large and is read again. One object is never too large."""
KEPT_LIMITS: Final = 1000
"""Lists whose limits are remembered. If there are more, all are forgotten, which costs a few requests."""


class PageLimits:
    """Limits of lists with large objects, each remembered for the next list of the same type, namespace and selectors.

    A selector may match few objects, of which the server finds less with a small limit than with a large one.
    """

    def __init__(self) -> None:
        self._limits: dict[tuple[str, str | None, str], int] = {}

    def first(self, kind: Kind, namespace: str | None, wanted: int, selectors: str = "") -> int:
        """Return the limit to begin a list with. A limit that was small doubles with each list."""
        key = kind.resource, namespace, selectors
        limit = self._limits.get(key)
        if limit is None:
            return wanted
        if 2 * limit < wanted:
            self._limits[key] = 2 * limit
        else:
            del self._limits[key]
        return min(wanted, limit)

    def shrink(self, kind: Kind, namespace: str | None, limit: int, selectors: str = "") -> int:
        """Return the next limit after a page with this one was too large, and remember it."""
        if len(self._limits) >= KEPT_LIMITS:
            self._limits.clear()
        smaller = max(1, limit // PAGE_SHRINK)
        self._limits[kind.resource, namespace, selectors] = smaller
        return smaller
