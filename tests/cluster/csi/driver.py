"""Assemble the services of one driver."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from tests.cluster.csi import registration, stubs
from tests.cluster.csi.controller import Controller
from tests.cluster.csi.faults import Faults
from tests.cluster.csi.identity import Identity
from tests.cluster.csi.images import ImageStore
from tests.cluster.csi.metadata import SnapshotMetadata
from tests.cluster.csi.node import Node
from tests.cluster.csi.options import Options
from tests.cluster.csi.quiescing import thaw
from tests.cluster.csi.serving import Server
from tests.cluster.csi.snapshots import SnapshotListing, Snapshots


@contextlib.contextmanager
def running(options: Options) -> Iterator[None]:
    """Serve until the context ends. Volumes stay attached then, since they belong to the kubelet."""
    with _sole_owner(options.data):
        faults = Faults(options.data)
        plugin = _plugin(options, faults)
        registrar = Server(options.registration_socket, faults)
        registrar.add(registration.service(), registration.Registration(options.name, options.socket))
        plugin.start()
        registrar.start()
        try:
            yield
        finally:
            faults.close()
            registrar.stop()
            plugin.stop()


def _plugin(options: Options, faults: Faults) -> Server:
    services = stubs.load("csi").DESCRIPTOR.services_by_name
    volumes = ImageStore(os.path.join(options.data, "volumes"))
    snapshots = ImageStore(os.path.join(options.data, "snapshots"))
    for volume in volumes.all():
        thaw(volume.path)
    server = Server(options.socket, faults)
    server.add(services["Identity"], Identity(options.name, has_metadata=options.metadata))
    server.add(services["Node"], Node(volumes, options.node, options.block_mode))
    controller: list[object] = [Controller(volumes, snapshots if options.snapshots else None, options.offers)]
    if options.snapshots:
        controller.append(Snapshots(volumes, snapshots))
    if options.list_snapshots:
        controller.append(SnapshotListing(snapshots))
    server.add(services["Controller"], *controller)
    if options.metadata:
        server.add(services["SnapshotMetadata"], SnapshotMetadata(snapshots))
    return server


@contextlib.contextmanager
def _sole_owner(data: str) -> Iterator[None]:
    """Hold the data directory, or fail: an old driver on an unlinked socket would go unnoticed otherwise."""
    os.makedirs(data, exist_ok=True)
    with open(os.path.join(data, "lock"), "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"another driver serves from {data}") from None
        yield
