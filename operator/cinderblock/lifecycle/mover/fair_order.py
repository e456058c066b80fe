"""The order in which waiting operations get mover slots: namespaces take turns, and each starts its oldest first."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeVar

Age = tuple[datetime | None, str]
"""Sorts operations by age; see `volume_lock.age_key`."""
A = TypeVar("A", bound=Age)


def count_before(
    mine: tuple[str, A],
    waiting: Mapping[str, Sequence[A]],
    running: Mapping[str, int],
    *,
    namespace_limit: int,
    at_most: int,
) -> int:
    """Return how many slots go to other operations before one of them goes to mine.

    A slot goes to the namespace with the fewest movers. Among equals it goes to the operation that waits longest.

    Args:
        mine: namespace and age of the operation.
        waiting: ages of all waiting operations by namespace, sorted, with mine among them.
        running: numbers of movers by namespace.
        namespace_limit: movers that a namespace may have.
        at_most: the count ends here.
    """
    turns = [
        (running.get(namespace, 0), ages[0], namespace, 0)
        for namespace, ages in waiting.items()
        if ages and running.get(namespace, 0) < namespace_limit
    ]
    heapq.heapify(turns)
    count = 0
    while turns and count < at_most:
        movers, age, namespace, place = heapq.heappop(turns)
        if (namespace, age) == mine:
            return count
        count += 1
        ages = waiting[namespace]
        if movers + 1 < namespace_limit and place + 1 < len(ages):
            heapq.heappush(turns, (movers + 1, ages[place + 1], namespace, place + 1))
    return count
