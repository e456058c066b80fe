"""Attributes of files that a backup or restore could not preserve, and the policies for such files."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from cinderblock.api.meta import Model

Path = Annotated[str, Field(max_length=255)]
"""A path within a volume, in printable characters and cut to 255 of them."""


class Unreadable(StrEnum):
    """Policy of a backup for a file that cannot be read, or whose attributes the format cannot express."""

    FAIL = "Fail"
    SKIP = "Skip"


class Fidelity(StrEnum):
    """Policy of a restore for a target that cannot preserve the owner, mode, links or times of a file."""

    STRICT = "Strict"
    BEST_EFFORT = "BestEffort"


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
