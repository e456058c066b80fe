"""What of a tree's metadata this process is able to keep, and the count of what it could not."""

from __future__ import annotations

import errno
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Feature(Enum):
    """A part of a tree's metadata that needs a capability, or support by the file system."""

    OWNERS = "owners of files"
    FILE_CAPABILITIES = "file capabilities"
    DEVICE_NODES = "device nodes"
    ACLS = "POSIX ACLs"
    ATTRIBUTES = "extended attributes"
    TRUSTED_ATTRIBUTES = "trusted.* attributes"
    ANY_FILE = "files that the mover's user may not read"
    ANY_OWNER = "modes and times of files of other users"
    SETGID_BITS = "setgid bits of files of other groups"


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What cannot be kept, found out before the work.

    Attributes:
        lacking: for each feature that cannot be kept, why, as a sentence; empty where nothing need be said beforehand,
            since only the backup shows whether it has any.
    """

    lacking: Mapping[Feature, str] = field(default_factory=dict)

    def keeps(self, feature: Feature) -> bool:
        """Whether the feature can be kept."""
        return feature not in self.lacking

    def warnings(self) -> list[str]:
        """Short sentences for the report, one for each thing that cannot be kept."""
        return [sentence for sentence in self.lacking.values() if sentence]


_REFUSALS = frozenset({errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL})
"""How the kernel refuses what is not possible at all; ENOSPC or EIO is never taken for it. chown gives EINVAL for an
owner that a user namespace does not know."""


class Losses:
    """What could not be kept during a run, by feature. May be used by several threads."""

    def __init__(self, fidelity: Fidelity) -> None:
        self._fidelity = fidelity
        self._counts: Counter[Feature] = Counter()
        self._lock = threading.Lock()

    @property
    def lacking(self) -> list[Feature]:
        """What is known to be impossible."""
        return list(self._fidelity.lacking)

    def forgive(self, feature: Feature, error: OSError) -> None:
        """Count a refusal that was to be expected; raise ``error`` if it was not."""
        if self._fidelity.keeps(feature) or error.errno not in _REFUSALS:
            raise error
        with self._lock:
            self._counts[feature] += 1

    def add(self, feature: Feature, objects: int) -> None:
        """Count what another process could not keep."""
        with self._lock:
            self._counts[feature] += objects

    def count(self, feature: Feature) -> int:
        """How many objects have lost this."""
        return self._counts[feature]

    def sentences(self) -> list[str]:
        """Short sentences for the report, one for each feature that was lost."""
        return [
            f"{feature.value} that could not be kept: {self._counts[feature]}"
            for feature in Feature
            if self._counts[feature]
        ]
