"""Mounts of this machine, read from the kernel's table rather than remembered, so that a restart forgets nothing."""

import os
import re
from dataclasses import dataclass

from tests.cluster.csi import commands


@dataclass(frozen=True)
class Mount:
    """One line of the mount table."""

    device: str
    """`major:minor` of the file system."""
    root: str
    """The part of the file system that is mounted: `/`, or what was bound."""
    target: str
    """Where it is mounted."""


def table() -> list[Mount]:
    """Return all mounts that this process sees, oldest first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        words = [line.split() for line in lines]
    return [Mount(device=word[2], root=_unescape(word[3]), target=_unescape(word[4])) for word in words]


def is_mounted(target: str) -> bool:
    """Tell whether something is mounted exactly there."""
    real = os.path.realpath(target)
    return any(mount.target == real for mount in table())


def mount_file_system(device: str, target: str, kind: str, options: list[str]) -> None:
    """Mount the device's file system on the target, which is made if absent."""
    os.makedirs(target, exist_ok=True)
    flags = ["-o", ",".join(options)] if options else []
    commands.run("mount", "-t", kind, *flags, device, target)


def bind(source: str, target: str, read_only: bool) -> None:
    """Show the source, a directory or a file, at the existing target."""
    commands.run("mount", "--bind", source, target)
    if read_only:
        commands.run("mount", "-o", "remount,bind,ro", target)


def unmount(target: str) -> None:
    """Remove every mount stacked on the target; nothing mounted there is fine."""
    while is_mounted(target):
        commands.run("umount", target)


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
