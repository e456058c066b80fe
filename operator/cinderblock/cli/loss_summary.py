"""A text about metadata that could not be preserved."""

from __future__ import annotations

from collections.abc import Iterable

from cinderblock.api.losses import Loss


def summarize_losses(losses: Iterable[Loss]) -> str:
    """Return the losses by kind, with counts and examples; empty if there are none."""
    parts = []
    for loss in losses:
        count = "" if loss.objects is None else f": {loss.objects}"
        parts.append(f"{loss.what}{count}" + (f" ({', '.join(loss.examples)})" if loss.examples else ""))
    return "; ".join(parts)
