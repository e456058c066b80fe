"""Start and stop a cluster, and report its state: the order of the parts, and the conditions to wait for."""

import contextlib
import functools
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import caching, cgroups, cleanup, containers, crds, debian, images, network, storage, toolchain
from tests.cluster import settings as choices
from tests.cluster.components import TOOLS, Components
from tests.cluster.daemons import Daemons
from tests.cluster.errors import ClusterError
from tests.cluster.health import Health
from tests.cluster.programs import Program
from tests.cluster.settings import NODE, Settings

_FOLDERS = ("bin", "conf", "log", "run", "csi")


def up() -> Settings:
    """Make sure that a whole cluster runs, until it is taken down by name."""
    _lock_file("temporary").unlink(missing_ok=True)
    return _up()


def _up() -> Settings:
    """Start what does not run; what runs is left alone."""
    if os.geteuid() != 0:
        raise ClusterError("a cluster needs root: it makes mounts, loop devices and network links")
    began = time.monotonic()
    debian.ensure()
    toolchain.ensure(TOOLS)
    images.archives()
    with _locked():
        settings = choices.load() or _create()
        _Bringing(settings, began).all()
    return settings


def down() -> None:
    """Take the cluster off this machine; none there is fine."""
    with _locked():
        _lock_file("temporary").unlink(missing_ok=True)
        settings = choices.load()
        if settings is None:
            _say(f"no cluster in {choices.directory()}")
            return
        began = time.monotonic()
        debian.ensure()
        cleanup.remove(settings, toolchain.tool("kube-proxy"))
        _say(f"down after {time.monotonic() - began:.1f} s")


@contextlib.contextmanager
def borrowed() -> Iterator[Settings]:
    """Have a cluster for the length of the block. One that was not there before is taken down by its last borrower."""
    users, is_temporary = _lock_file("users"), _lock_file("temporary")
    try:
        with caching.locked(users, shared=True):
            if choices.load() is None:
                is_temporary.touch()
            yield _up()
    finally:
        with caching.locked_if_free(users) as is_last:
            if is_last and is_temporary.exists():
                down()


def running() -> Settings:
    """Return the settings of the cluster. Raises ClusterError if there is none."""
    settings = choices.load()
    if settings is None:
        raise ClusterError(f"no cluster in {choices.directory()}: python -m tests.cluster up")
    return settings


def _create() -> Settings:
    if network.is_proxied_by_another():
        raise ClusterError(
            "the packet filter has chains of another kube-proxy; two of them would undo each other's rules. "
            "Take the other cluster down, or remove what it left by `kube-proxy --cleanup`"
        )
    return choices.create()


class _Bringing:
    """One start of a cluster, on a machine that may already run any of its parts."""

    def __init__(self, settings: Settings, began: float) -> None:
        self._settings = settings
        self._began = began
        self._daemons = Daemons(settings.directory, settings.environment())
        self._components = Components(settings)

    def all(self) -> None:
        """Start every part, in order of dependency."""
        self._settings.complete.unlink(missing_ok=True)
        self._prepare()
        self._control_plane()
        self._node()
        self._storage()
        self._wait()
        self._settings.complete.touch()

    def _prepare(self) -> None:
        for folder in _FOLDERS:
            (self._settings.directory / folder).mkdir(exist_ok=True)
        for name, path in self._components.binaries.items():
            _link(self._settings.directory / "bin" / name, path)
        cgroups.create(self._settings.name)
        network.start(self._settings)

    def _control_plane(self) -> None:
        components = self._components
        self._start(components.runtime(), *components.control_plane())
        self._daemons.wait("kube-apiserver", components.api.is_ready, 60, "API server ready")
        self._report("API server ready")
        self._start(*components.controllers())

    def _node(self) -> None:
        settings = self._settings
        self._daemons.wait("containerd", lambda: containers.is_serving(settings), 30, "containerd serving")
        images.ensure_loaded(settings)
        self._start(*self._components.node())

    def _storage(self) -> None:
        components = self._components
        components.api.apply_definitions([*crds.snapshots(), *crds.snapshot_metadata()])
        services = storage.metadata_services(self._settings, components.authority)
        for manifest in [*storage.classes(), *storage.snapshot_classes(), *services]:
            components.api.apply(manifest)
        self._start(*components.storage())

    def _wait(self) -> None:
        health = Health(self._settings, self._components)
        self._daemons.wait("kubelet", health.is_node_ready, 60, f"node {NODE} ready")
        self._report("node ready")
        self._daemons.wait("kube-proxy", health.is_proxy_healthy, 30, "kube-proxy healthy")
        for driver in storage.DRIVERS:
            is_registered = functools.partial(health.is_registered, driver.name)
            self._daemons.wait(driver.program, is_registered, 120, f"{driver.name} registered")
        self._daemons.wait("kube-controller-manager", health.has_default_account, 30, "default ServiceAccount")
        self._report("drivers registered, up")

    def _start(self, *programs: Program) -> None:
        started = [program.name for program in programs if self._daemons.start(program)]
        if started:
            self._report(f"started {', '.join(started)}")

    def _report(self, text: str) -> None:
        _say(f"{time.monotonic() - self._began:5.1f} s  {text}")


def _link(link: Path, target: Path) -> None:
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.rename(link)


def _locked() -> contextlib.AbstractContextManager[None]:
    """Let one command at a time work on a state directory."""
    return caching.locked(_lock_file("commands"))


def _lock_file(name: str) -> Path:
    """Return a file about a state directory that is outside of it: `down` removes the directory."""
    key = hashlib.sha256(str(choices.directory()).encode()).hexdigest()[:16]
    return caching.directory("locks") / f"{key}.{name}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
