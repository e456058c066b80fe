"""Objects that a backup leaves out because they cannot be read or stored."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from cinderblock.api.file_policies import Unreadable
from cinderblock.errors import CinderblockError, SourceError
from cinderblock.volume.metadata_support import format_example

logger = logging.getLogger(__name__)

MAX_EXAMPLES: Final = 5
"""Most example paths (`api.mover.MoverReport.unreadable_examples`)."""
MAX_OMITTED_OBJECTS: Final = 100_000
"""Most objects that may be left out. Their paths are held in memory, and a volume with more of them needs a check."""
MAX_LOGGED_OBJECTS: Final = 100

OmissionCount = tuple[int, list[str]]
"""Number and examples of omitted objects; plain values for another process."""


class Omissions:
    """The objects of a volume that a backup leaves out. Only one thread may use it.

    Args:
        unreadable: whether objects may be left out.
    """

    def __init__(self, unreadable: Unreadable = Unreadable.FAIL) -> None:
        self.unreadable = unreadable
        self.files = 0
        self.examples: list[str] = []
        self._paths: set[bytes] = set()

    def __contains__(self, path: bytes) -> bool:
        """Return whether this process has left out the object at this path."""
        return path in self._paths

    def __bool__(self) -> bool:
        """Return whether anything was left out."""
        return bool(self.files)

    def may_omit(self, error: CinderblockError) -> bool:
        """Return whether an error allows an omission: it concerns a single object, and the task allows omissions."""
        concerns_one_object = isinstance(error, SourceError) and error.concerns_one_object
        return concerns_one_object and self.unreadable is Unreadable.SKIP

    def omit(self, error: CinderblockError, path: bytes, *, is_directory: bool = False) -> None:
        """Leave out an object, or a directory with all its contents. Raises ``error`` if that is not allowed."""
        if not self.may_omit(error):
            raise error
        if self.files >= MAX_OMITTED_OBJECTS:
            raise SourceError(
                f"more than {MAX_OMITTED_OBJECTS} files cannot be read: check the volume first ({error.message})"
            )
        if self.files < MAX_LOGGED_OBJECTS:
            logger.warning("Left out: %s", error.message)
        self._add(path + b"/" if is_directory else path)

    def omit_link(self, path: bytes) -> None:
        """Leave out another name of an object that was left out."""
        self._add(path)

    def links_to(self, targets: Iterable[bytes]) -> bool:
        """Return whether any of these paths was left out."""
        return bool(self._paths) and any(target in self._paths for target in targets)

    def to_plain(self) -> OmissionCount:
        """Return the counts for another process."""
        return self.files, self.examples

    def add(self, counted: OmissionCount) -> None:
        """Add the omissions of another process. The rows that it found contain none of these paths."""
        files, examples = counted
        self.files += files
        self.examples += examples[: MAX_EXAMPLES - len(self.examples)]

    def _add(self, path: bytes) -> None:
        self.files += 1
        self._paths.add(path)
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(format_example(path))
