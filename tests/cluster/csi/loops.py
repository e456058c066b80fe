"""Loop devices, which turn image files into block devices.

The kernel may have more loop devices than /dev has nodes: without devtmpfs, nobody creates /dev/loop8. A Block pod
needs two of them, ours and one that the kubelet attaches on top, so a free node is created too.
"""

import fcntl
import json
import os
import stat
from dataclasses import dataclass

from tests.cluster.csi import commands

LOOP_MAJOR = 7
LOOP_CTL_GET_FREE = 0x4C82
NODE_MODE = 0o660
ATTEMPTS = 5
"""Another process may take the free device between asking for it and using it."""


@dataclass(frozen=True)
class Loop:
    """One loop device that is attached to an image."""

    path: str
    read_only: bool
    leaving: bool
    """Detached already, but still open somewhere: it vanishes with its last user and must not be used again."""

    @property
    def device(self) -> str:
        """Return `major:minor`, as in the mount table."""
        number = os.stat(self.path).st_rdev
        return f"{os.major(number)}:{os.minor(number)}"


def attached(image: str) -> list[Loop]:
    """Return the loop devices over the image; an absent image has none."""
    if not os.path.exists(image):
        return []
    return [
        Loop(path=str(entry["name"]), read_only=bool(entry["ro"]), leaving=bool(entry["autoclear"]))
        for entry in _list("-j", image)
    ]


def attached_below(directory: str) -> list[str]:
    """Return the loop devices whose image lies, or lay, below the directory."""
    prefix = os.path.realpath(directory) + os.sep
    return [str(entry["name"]) for entry in _list() if str(entry["back-file"]).startswith(prefix)]


def attach(image: str, read_only: bool = False) -> Loop:
    """Attach a new loop device to the image. An incomplete sector of 512 bytes at its end is not visible."""
    flags = ["--read-only"] if read_only else []
    for remaining in reversed(range(ATTEMPTS)):
        _make_free_node()
        try:
            path = commands.run("losetup", "--find", "--show", *flags, image)
            break
        except commands.CommandFailedError:
            if not remaining:
                raise
    _make_free_node()
    return Loop(path=path, read_only=read_only, leaving=False)


def detach(path: str) -> None:
    """Let the device go; it lingers, `leaving`, as long as somebody has it open."""
    os.chmod(path, NODE_MODE)
    commands.run("losetup", "--detach", path)


def _list(*arguments: str) -> list[dict[str, object]]:
    output = commands.run("losetup", "--list", "--json", "--output", "NAME,RO,AUTOCLEAR,BACK-FILE", *arguments)
    entries: list[dict[str, object]] = json.loads(output)["loopdevices"] if output else []
    return entries


def _make_free_node() -> None:
    with open("/dev/loop-control", "rb") as control:
        number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
    try:
        os.mknod(f"/dev/loop{number}", stat.S_IFBLK | NODE_MODE, os.makedev(LOOP_MAJOR, number))
    except FileExistsError:
        return
