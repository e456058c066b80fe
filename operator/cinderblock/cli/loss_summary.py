"""What could not be kept, in words."""

from __future__ import annotations

from collections.abc import Iterable

from cinderblock.api.losses import Loss


def summarize_losses(losses: Iterable[Loss]) -> str:
    """Return what could not be kept, each kind with its count and examples; empty if all was kept."""
    told = []
    for loss in losses:
        count = "" if loss.objects is None else f": {loss.objects}"
        told.append(f"{loss.what}{count}" + (f" ({', '.join(loss.examples)})" if loss.examples else ""))
    return "; ".join(told)
