"""Metadata that this process can keep of a tree, and counts of the metadata that it lost."""

from __future__ import annotations

import errno
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from cinderblock.errors import TargetError
from cinderblock.volume.errors import format_path

if TYPE_CHECKING:
    from cinderblock.api.losses import Loss

MAX_EXAMPLES: Final = 3
"""Most example paths of each feature."""
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
    """Metadata that cannot be kept, as assessed before the work.

    Attributes:
        lacking: for each feature that cannot be kept, the reason as a sentence. It is empty if no warning is needed
            beforehand, because only the backup shows whether the feature is in use.
    """

    lacking: Mapping[Feature, str] = field(default_factory=dict)

    def keeps(self, feature: Feature) -> bool:
        """Return whether the feature can be kept."""
        return feature not in self.lacking

    def warnings(self) -> list[str]:
        """Return short sentences for the report, one for each feature that cannot be kept."""
        return [sentence for sentence in self.lacking.values() if sentence]


_METADATA_ERRNOS: Final = frozenset(
    {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.E2BIG, errno.ERANGE}
)
"""Errors of metadata that a file system cannot store; ENOSPC and EIO are not among them. chown returns EINVAL for an
owner that a user namespace does not map. FUSE returns ENOSYS for a call that its server does not implement. E2BIG and
ERANGE are for attributes that do not fit."""
_LINK_ERRNOS: Final = (_METADATA_ERRNOS | {errno.EMLINK, errno.EXDEV, errno.ENAMETOOLONG}) - {errno.EACCES}
"""Links have more errors (link(2), symlink(2)): too many links, links across quotas, too long a target. EACCES concerns
the directory, in which no file could be created either."""
_ERRNOS_WITH_ADVICE: Final = frozenset({errno.E2BIG, errno.EMLINK, errno.ENAMETOOLONG})
"""Errors with specific advice (`volume.errors`)."""
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
"""Names of losses that also say what the restore made instead."""
_BEST_EFFORT_ADVICE: Final = "use fidelity BestEffort (--best-effort) to continue and count them"


@dataclass(slots=True)
class _Count:
    """Number and examples of the objects that have lost a feature."""

    objects: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, objects: int, examples: list[str]) -> None:
        self.objects += objects
        self.examples += examples[: MAX_EXAMPLES - len(self.examples)]


LossCount = dict[str, tuple[int, list[str]]]
"""By name of a Feature, the number of objects and examples; plain values for another process."""


class MetadataLosses:
    """Metadata that could not be kept during a run, by feature. Several threads may use it.

    Args:
        support: says which features are known to be impossible. Their losses are counted and never end a run.
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
        """The features that are known to be impossible."""
        return list(self._support.lacking)

    def lacks(self, feature: Feature) -> bool:
        """Return whether the feature is known to be impossible."""
        return not self._support.keeps(feature)

    def count_if_expected(self, feature: Feature, error: OSError, path: bytes) -> None:
        """Count an error that means lost metadata.

        Raises TargetError if the run is strict and the loss was not known; ``error`` if it does not concern metadata,
        or has specific advice.
        """
        is_about_metadata = error.errno in (_LINK_ERRNOS if feature in _LINK_FEATURES else _METADATA_ERRNOS)
        if not is_about_metadata or (self._ends_run(feature) and error.errno in _ERRNOS_WITH_ADVICE):
            raise error
        code = errno.errorcode.get(error.errno or 0, str(error.errno))
        self._count_or_raise(feature, path, "refuses", f"{code}: {format_path(path)}")

    def count_unapplied(self, feature: Feature, path: bytes, found: str) -> None:
        """Count a call that reported success but did not set the metadata.

        Args:
            feature: the metadata that the call should have set.
            path: of the object.
            found: the metadata that the object has now.

        Raises TargetError if the run is strict and the loss was not known.
        """
        self._count_or_raise(feature, path, "only pretends to set", f"{format_path(path)} has {found}")

    def count_tolerated(self, feature: Feature, path: bytes) -> None:
        """Count a loss that never ends a run. Repeated losses of one object count once."""
        last_paths = vars(self._last)
        if last_paths.get(feature.name) == path:
            return
        last_paths[feature.name] = path
        with self._lock:
            count = self._counts[feature]
            count.add(1, [format_example(path)] if len(count.examples) < MAX_EXAMPLES else [])

    def add(self, counted: LossCount) -> None:
        """Add the losses of another process."""
        with self._lock:
            for name, (objects, examples) in counted.items():
                self._counts[Feature[name]].add(objects, examples)

    def to_plain(self) -> LossCount:
        """Return the counts for another process."""
        return {feature.name: (count.objects, count.examples) for feature, count in self._counts.items()}

    def count(self, feature: Feature) -> int:
        """Return the number of objects that have lost a feature."""
        return self._counts[feature].objects if feature in self._counts else 0

    def summaries(self) -> list[str]:
        """Return short sentences for the report, one for each lost feature."""
        return [f"{loss.what} that could not be kept: {loss.objects}" for loss in self.list_losses()]

    def list_losses(self) -> list[Loss]:
        """Return all losses with examples."""
        from cinderblock.api.losses import Loss  # noqa: PLC0415 - the worker processes start without pydantic

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
            targets = _TYPICAL_TARGETS.get(feature, _LIKE_OTHER_FILE_SYSTEMS)
            raise TargetError(f"the target {verb} {feature.value}, {targets}: {_BEST_EFFORT_ADVICE} ({where})")
        self.count_tolerated(feature, path)


def format_example(path: bytes) -> str:
    """Return a path as shown in reports: printable, and shortened to the limit."""
    text = format_path(path)
    return text if len(text) <= _EXAMPLE_CHARACTERS else text[: _EXAMPLE_CHARACTERS - 1] + "…"
