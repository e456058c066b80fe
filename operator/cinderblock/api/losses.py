"""What a backup or a restore could not keep of a file besides its content."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from cinderblock.api.meta import Model

Path = Annotated[str, Field(max_length=255)]
"""A path within a volume, printable and cut to fit."""


class Unreadable(StrEnum):
    """What a backup does about a file that cannot be read or described."""

    FAIL = "Fail"
    SKIP = "Skip"


class Fidelity(StrEnum):
    """What a restore does if the target cannot keep the owner, mode, links or times of a file."""

    STRICT = "Strict"
    BEST_EFFORT = "BestEffort"


def count_files(count: int) -> str:
    """Return a number of files in words: ``1 file``, ``2 files``."""
    return f"{count} file" if count == 1 else f"{count} files"


class Loss(Model):
    """One kind of thing that could not be kept."""

    what: Annotated[str, Field(max_length=255)]
    """What was lost, for example owners of files."""
    objects: Annotated[int, Field(ge=0)] | None = None
    """How many files have lost it; none: the number cannot be known."""
    examples: Annotated[list[Path], Field(max_length=3)] = []
    """Some of these files."""


Losses = Annotated[list[Loss], Field(max_length=16)]
"""What could not be kept, each kind once."""
