"""ext4 inside an image file, created and grown before a loop device is attached to it.

On the file itself, mkfs can discard everything, and then knows that the inode tables are zero. Nothing is written for
them, now or later by the kernel in the background, which a later snapshot would see as changed blocks.
"""

import os
import re

from tests.cluster.csi import commands
from tests.cluster.csi.refusals import RefusalError

KIND = "ext4"
NOTHING_FOUND = 2
ERRORS_CORRECTED = 1


def prepare(image: str) -> None:
    """Make sure that the image holds an ext4 that fills it. Anything else that is recognised is left alone."""
    found = commands.run("blkid", "-p", "-s", "TYPE", "-o", "value", image, accept=(0, NOTHING_FOUND))
    if not found:
        commands.run("mkfs.ext4", "-q", "-F", "-m", "0", image)
    elif found != KIND:
        raise RefusalError("FAILED_PRECONDITION", f"the volume holds {found}, not {KIND}")
    elif _has_room_behind(image):
        commands.run("e2fsck", "-f", "-p", image, accept=(0, ERRORS_CORRECTED))
        commands.run("resize2fs", image)


def _has_room_behind(image: str) -> bool:
    """Tell whether the file system ends before its image, as after a restore into a larger volume."""
    header = commands.run("dumpe2fs", "-h", image)
    block = _number(header, "Block size")
    return os.stat(image).st_size >= (_number(header, "Block count") + 1) * block


def _number(header: str, field: str) -> int:
    match = re.search(rf"^{field}:\s*(\d+)$", header, re.MULTILINE)
    assert match is not None, f"dumpe2fs printed no {field}"
    return int(match[1])
