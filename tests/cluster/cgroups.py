"""The control group of all pod processes, in either version of control groups."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import processes

_ROOT = Path("/sys/fs/cgroup")


def create(name: str) -> None:
    """Make the group in every hierarchy, as the kubelet wants to find it."""
    for hierarchy in _hierarchies():
        controllers = hierarchy / "cgroup.controllers"
        if controllers.exists():
            for controller in controllers.read_text().split():
                # A controller that cannot be passed on is one that the kubelet does without, or complains about.
                with contextlib.suppress(OSError):
                    (hierarchy / "cgroup.subtree_control").write_text(f"+{controller}")
        (hierarchy / name).mkdir(exist_ok=True)


def kill(name: str) -> None:
    """Kill every process in the group, also those that are started meanwhile."""
    for _ in range(50):
        pids = {int(pid) for group in _groups(name) for pid in _lines(group / "cgroup.procs")}
        found = [process for pid in pids if (process := processes.find(pid)) and process.is_alive]
        if not found:
            return
        processes.kill(found)


def remove(name: str) -> None:
    """Remove the group from every hierarchy."""
    for group in _groups(name):
        group.rmdir()


def _hierarchies() -> list[Path]:
    """Return the hierarchy of version 2, or all of version 1 and the one of version 2 that may exist next to them."""
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    return [path for path in sorted(_ROOT.iterdir()) if path.is_dir() and not path.is_symlink()]


def _groups(name: str) -> Iterator[Path]:
    """Return the group and all below it, deepest first."""
    for hierarchy in _hierarchies():
        for folder, _, _ in os.walk(hierarchy / name, topdown=False):
            yield Path(folder)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
