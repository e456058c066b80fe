"""Remove what a driver has left in the kernel on purpose, once no kubelet will remove it."""

import os

from tests.cluster.csi import loops, mounts


def release(data: str, mounted_below: str) -> None:
    """Remove all mounts below the one directory, newest first, and all loop devices over images below the other.

    Those that a kubelet put on top of published devices go first: they keep the mounts busy.
    """
    for path in loops.attached_below(mounted_below):
        loops.detach(path)
    prefix = os.path.realpath(mounted_below) + os.sep
    for mount in reversed(mounts.table()):
        if mount.target.startswith(prefix):
            mounts.unmount(mount.target)
    for path in loops.attached_below(data):
        loops.detach(path)
