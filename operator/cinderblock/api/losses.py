"""Attributes of files that a backup or restore could not preserve."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cinderblock.api.meta import Model

Path = Annotated[str, Field(max_length=255)]
"""A path within a volume, in printable characters and cut to 255 of them."""


def count_files(count: int) -> str:
    """Return a number of files as text: ``1 file``, ``2 files``."""
    return f"{count} file" if count == 1 else f"{count} files"


class Loss(Model):
    """One kind of attribute that could not be preserved."""

    what: Annotated[str, Field(max_length=255)]
    """Attribute that was lost, for example owners of files."""
    objects: Annotated[int, Field(ge=0)] | None = None
    """Number of files that lost the attribute. Unset if the number is unknown."""
    examples: Annotated[list[Path], Field(max_length=3)] = []
    """Paths of up to three of these files."""


Losses = Annotated[list[Loss], Field(max_length=16)]
"""Attributes that could not be preserved, each kind once."""
