"""The consistency of a copy of a volume in use: a frozen file system, or one instant of the device below it.

The parameter `freeze` of a StorageClass says it for the volumes of the class, that of a VolumeSnapshotClass for its
snapshots: "false", and nothing freezes or flushes a file system. The default is "true".

Drivers of disks do not freeze: their snapshots are what a disk holds after the power has failed. Such a snapshot may
have the new timestamps of a file, which came with the journal, and its old data, which the kernel has not written yet.
"""

from collections.abc import Callable, Mapping

from tests.cluster.csi import instants, quiescing
from tests.cluster.csi.refusals import RefusalError

PARAMETER = "freeze"
_ANSWERS = {"true": True, "false": False}


def freezes(parameters: Mapping[str, str]) -> bool:
    """Read the parameter of a class, or refuse the call."""
    answer = parameters.get(PARAMETER, "true")
    if answer not in _ANSWERS:
        raise RefusalError("INVALID_ARGUMENT", f"{PARAMETER} is true or false, not {answer!r}")
    return _ANSWERS[answer]


def copier(*, is_frozen: bool) -> Callable[[str, str], None]:
    """Return the function that copies an image to a new file."""
    return quiescing.copy if is_frozen else instants.copy
