"""Namespaces that had very many objects a moment ago, so that a list of the first ones would be thrown away."""

from __future__ import annotations

import asyncio
from typing import Final

LARGE_SECONDS: Final = 30.0
"""For how long it counts that a namespace is large. Until then, its objects are selected, which is right for a small
namespace as well."""


class LargeNamespaces:
    """Remembers which namespaces are large. Losing it costs lists. For one event loop."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, type], float] = {}

    def note(self, namespace: str, model: type, *, is_large: bool) -> None:
        """Take note of a list of the first objects."""
        self._until.pop((namespace, model), None)
        if is_large:
            now = asyncio.get_running_loop().time()
            self._until = {key: until for key, until in self._until.items() if until > now}
            self._until[namespace, model] = now + LARGE_SECONDS

    def is_large(self, namespace: str, model: type) -> bool:
        """Return whether a namespace had more objects than are listed as a whole."""
        return self._until.get((namespace, model), 0.0) > asyncio.get_running_loop().time()
