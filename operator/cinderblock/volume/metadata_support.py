"""What of a tree's metadata this process is able to keep, and the count of what it could not."""

from __future__ import annotations

import errno
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from cinderblock.api.losses import Loss
from cinderblock.errors import TargetError
from cinderblock.volume.errors import format_path

MAX_EXAMPLES: Final = 3
"""Paths that are named for each feature."""
_EXAMPLE_CHARACTERS: Final = 255


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
    MODES = "modes of files"
    TIMES = "times of files"
    FRACTIONS = "fractions of times"
    SYMLINKS = "symbolic links"
    HARD_LINKS = "hard links"
    FIFOS = "named pipes"


@dataclass(frozen=True, slots=True)
class MetadataSupport:
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


_METADATA_ERRNOS: Final = frozenset(
    {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.E2BIG, errno.ERANGE}
)
"""How the kernel refuses metadata that a file system cannot have. ENOSPC and EIO are not among them. chown gives EINVAL
for an owner that a user namespace does not know. FUSE gives ENOSYS for a call that its server does not have. E2BIG and
ERANGE are for attributes that do not fit."""
_LINK_ERRNOS: Final = (_METADATA_ERRNOS | {errno.EMLINK, errno.EXDEV, errno.ENAMETOOLONG}) - {errno.EACCES}
"""The kernel refuses links in more ways (link(2), symlink(2)): too many of them, across quotas, too long a target.
EACCES is about the directory, in which no file could be made either."""
_ERRNOS_WITH_ADVICE: Final = frozenset({errno.E2BIG, errno.EMLINK, errno.ENAMETOOLONG})
"""Refusals with advice of their own (`refusals`)."""
_LINK_FEATURES: Final = frozenset({Feature.SYMLINKS, Feature.HARD_LINKS, Feature.FIFOS})

_LIKE_ID_MAPPERS: Final = "as NFS with root_squash, EFS access points, SMB and blobfuse do"
_LIKE_COARSE_CLOCKS: Final = "as ext4 with inodes of 128 bytes, XFS without bigtime, FAT and blobfuse do"
_LIKE_SIMPLE_FILE_SYSTEMS: Final = "as SMB, FAT and blobfuse do"
_TYPICAL_TARGETS: Final = {
    Feature.OWNERS: _LIKE_ID_MAPPERS,
    Feature.MODES: _LIKE_ID_MAPPERS,
    Feature.TIMES: _LIKE_COARSE_CLOCKS,
    Feature.SYMLINKS: _LIKE_SIMPLE_FILE_SYSTEMS,
    Feature.HARD_LINKS: _LIKE_SIMPLE_FILE_SYSTEMS,
    Feature.FIFOS: _LIKE_SIMPLE_FILE_SYSTEMS,
    Feature.DEVICE_NODES: _LIKE_SIMPLE_FILE_SYSTEMS,
}
_LIKE_OTHER_FILE_SYSTEMS: Final = "as NFS, SMB and file systems of other kinds than the backup's may do"
_LOSS_NAMES: Final = {Feature.HARD_LINKS: "hard links (restored as copies)"}
"""Names of losses that also say what became of the objects."""
_BEST_EFFORT_ADVICE: Final = "fidelity BestEffort (--best-effort) goes on and counts them"


@dataclass(slots=True)
class _Count:
    """Objects that have lost a feature: how many, and the first of them."""

    objects: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, objects: int, examples: list[str]) -> None:
        self.objects += objects
        self.examples += examples[: MAX_EXAMPLES - len(self.examples)]


LossCount = dict[str, tuple[int, list[str]]]
"""By the name of a Feature: how many objects, and examples; plain values for another process."""


class MetadataLosses:
    """What could not be kept during a run, by feature. May be used by several threads.

    Args:
        fidelity: what is known to be impossible. Such losses are counted and never end a run.
        is_strict: whether any other loss ends the run with a TargetError.
    """

    def __init__(self, support: MetadataSupport, *, is_strict: bool = True) -> None:
        self._support = support
        self.is_strict = is_strict
        self._counts: defaultdict[Feature, _Count] = defaultdict(_Count)
        self._lock = threading.Lock()
        self._last = threading.local()

    @property
    def lacking(self) -> list[Feature]:
        """What is known to be impossible."""
        return list(self._support.lacking)

    def lacks(self, feature: Feature) -> bool:
        """Return whether the feature is known to be impossible."""
        return not self._support.keeps(feature)

    def count_if_expected(self, feature: Feature, error: OSError, path: bytes) -> None:
        """Count a refusal of metadata.

        Raises TargetError if the run is strict and the loss was not known; ``error`` if it is not about metadata, or
        has advice of its own.
        """
        is_about_metadata = error.errno in (_LINK_ERRNOS if feature in _LINK_FEATURES else _METADATA_ERRNOS)
        if not is_about_metadata or (self._ends_run(feature) and error.errno in _ERRNOS_WITH_ADVICE):
            raise error
        code = errno.errorcode.get(error.errno or 0, str(error.errno))
        self._count_or_raise(feature, path, "refuses", f"{code}: {format_path(path)}")

    def count_unapplied(self, feature: Feature, path: bytes, found: str) -> None:
        """Count a call that reported success, but did something else.

        Args:
            feature: what the call should have set.
            path: of the object.
            found: what the object has now.

        Raises TargetError if the run is strict and the loss was not known.
        """
        self._count_or_raise(feature, path, "only pretends to set", f"{format_path(path)} has {found}")

    def count_tolerated(self, feature: Feature, path: bytes) -> None:
        """Count a loss that ends no run."""
        seen = vars(self._last)
        if seen.get(feature.name) == path:
            return
        seen[feature.name] = path
        with self._lock:
            count = self._counts[feature]
            count.add(1, [format_example(path)] if len(count.examples) < MAX_EXAMPLES else [])

    def add(self, counted: LossCount) -> None:
        """Add the losses of another process."""
        with self._lock:
            for name, (objects, examples) in counted.items():
                self._counts[Feature[name]].add(objects, examples)

    def to_plain(self) -> LossCount:
        """The counts, for another process."""
        return {feature.name: (count.objects, count.examples) for feature, count in self._counts.items()}

    def count(self, feature: Feature) -> int:
        """How many objects have lost this."""
        return self._counts[feature].objects if feature in self._counts else 0

    def summaries(self) -> list[str]:
        """Short sentences for the report, one for each feature that was lost."""
        return [f"{loss.what} that could not be kept: {loss.objects}" for loss in self.list_losses()]

    def list_losses(self) -> list[Loss]:
        """Return what was lost, with examples."""
        found = [(feature, self._counts[feature]) for feature in Feature if feature in self._counts]
        return [
            Loss(what=_LOSS_NAMES.get(feature, feature.value), objects=count.objects, examples=count.examples)
            for feature, count in found
        ]

    def _ends_run(self, feature: Feature) -> bool:
        """Return whether the loss of the feature ends the run."""
        return self.is_strict and not self.lacks(feature)

    def _count_or_raise(self, feature: Feature, path: bytes, verb: str, where: str) -> None:
        if self._ends_run(feature):
            who = _TYPICAL_TARGETS.get(feature, _LIKE_OTHER_FILE_SYSTEMS)
            raise TargetError(f"the target {verb} {feature.value}, {who}: {_BEST_EFFORT_ADVICE} ({where})")
        self.count_tolerated(feature, path)


def format_example(path: bytes) -> str:
    """Return a path as a report shows it: printable, and cut to fit."""
    text = format_path(path)
    return text if len(text) <= _EXAMPLE_CHARACTERS else text[: _EXAMPLE_CHARACTERS - 1] + "…"
