"""Remove a cluster from the machine, whatever its state. Every step accepts that there is nothing to remove."""

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.cluster import cgroups, host_state, network, processes, waiting
from tests.cluster.csi.cleanup import release
from tests.cluster.csi.commands import CommandFailedError
from tests.cluster.daemons import Daemons
from tests.cluster.processes import Process
from tests.cluster.settings import Settings
from tests.cluster.storage import PROGRAM_PREFIX

_DRIVER_PATIENCE = 5
"""Seconds for drivers to thaw what they froze: a frozen file system cannot be unmounted for good."""


def remove(settings: Settings, proxy: Path) -> None:
    """End all processes of the cluster and undo all that they did. `proxy` is the kube-proxy to clean up with."""
    found = Daemons(settings.directory, settings.environment()).all()
    sockets = _shim_sockets(settings)
    _end_processes(settings, found)
    _release(settings)
    # If the cluster has no kube-proxy, its chains belong to somebody else.
    network.stop(settings, proxy if "kube-proxy" in found else None)
    cgroups.remove(settings.name)
    host_state.restore_sysctls(settings.sysctls)
    for path in [*sockets, *_log_links(settings)]:
        path.unlink(missing_ok=True)
    host_state.remove_folders(settings.absent_folders)
    # Last, and the description of the cluster very last: a removal that was cut short can be repeated.
    for path in sorted(settings.directory.iterdir(), key=lambda path: path.name == "cluster.json"):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    settings.directory.rmdir()


def _end_processes(settings: Settings, found: Mapping[str, Process]) -> None:
    drivers = {name: process for name, process in found.items() if name.startswith(PROGRAM_PREFIX)}
    # First those that would start or mount something again; nothing else has anything to lose.
    processes.kill(process for name, process in found.items() if name not in drivers)
    cgroups.kill(settings.name)
    processes.kill(_shims(settings))
    processes.end(drivers.values(), _DRIVER_PATIENCE)


def _shims(settings: Settings) -> Iterator[Process]:
    return processes.with_argument(str(settings.containerd_socket))


def _release(settings: Settings) -> None:
    """Remove mounts and loop devices. The kernel may need a moment more for those of a process that was killed."""
    directory = str(settings.directory)
    error = ""

    def is_released() -> bool:
        nonlocal error
        try:
            release(directory, mounted_below=directory)
        except CommandFailedError as refused:
            error = str(refused)
            return False
        return True

    waiting.until(is_released, 20, lambda: f"mounts below {directory} cannot be removed: {error}")


def _shim_sockets(settings: Settings) -> list[Path]:
    """Return the sockets that shims made outside of the cluster's directory, and leave if they are killed."""
    tasks = settings.directory / "containerd-run" / "io.containerd.runtime.v2.task"
    # containerd 1 writes the address alone, containerd 2 a JSON object with it.
    records = [*tasks.glob("*/*/address"), *tasks.glob("*/*/bootstrap.json")]
    return [Path(path) for record in records for path in re.findall(r'unix://([^"\s]+)', record.read_text())]


def _log_links(settings: Settings) -> list[Path]:
    """Return the links that the kubelet made to logs of our pods."""
    links = [path for path in host_state.LOG_LINKS.glob("*.log") if path.is_symlink()]
    return [link for link in links if link.readlink().is_relative_to(settings.directory)]
