"""The CSI drivers of the cluster: their processes, and the objects that announce them."""

import base64
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import golang
from tests.cluster.api import Manifest
from tests.cluster.csi import consistency
from tests.cluster.pki import Authority
from tests.cluster.programs import Program
from tests.cluster.settings import NODE, Settings

PROGRAM_PREFIX = "csi-driver-"
_ROOT = Path(__file__).parents[2]
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_DEFAULT_SNAPSHOT_CLASS = "snapshot.storage.kubernetes.io/is-default-class"
# Defaults: the first try again after 1 s, the last one after 5 minutes.
_RETRIES = ("--retry-interval-start=250ms", "--retry-interval-max=5s")
_CLIENT_LIMITS = ("--kube-api-qps=200", "--kube-api-burst=400")
# A snapshot that is deleted during its creation may wait for the next resync, by default 15 minutes.
_RESYNC = "--resync-period=10s"


UNFROZEN = "rawfile-unfrozen"
"""Name of the StorageClass, and of the VolumeSnapshotClass, whose snapshots are only crash consistent."""


@dataclass(frozen=True)
class VolumeClass:
    """One StorageClass."""

    name: str
    binding_mode: str = "Immediate"
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SnapshotClass:
    """One VolumeSnapshotClass."""

    name: str
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Driver:
    """One CSI driver."""

    short: str
    flags: tuple[str, ...]
    classes: tuple[VolumeClass, ...]
    """The first class of the first driver is the cluster's default."""
    snapshot_classes: tuple[SnapshotClass, ...] = ()
    """The first one is the driver's default."""

    @property
    def name(self) -> str:
        """Return the driver's full name."""
        return f"{self.short}.csi.cinderblock.test"

    @property
    def has_snapshots(self) -> bool:
        """Return whether the driver supports snapshots."""
        return bool(self.snapshot_classes)

    @property
    def program(self) -> str:
        """Return the name of the driver's process."""
        return f"{PROGRAM_PREFIX}{self.short}"

    def socket(self, settings: Settings) -> Path:
        """Return where sidecars call the driver."""
        return settings.kubelet_directory / "plugins" / self.name / "csi.sock"

    def data(self, settings: Settings) -> Path:
        """Return where the driver keeps its volumes, and takes faults."""
        return settings.directory / "csi" / self.short


_NO_FREEZE = {consistency.PARAMETER: "false"}
DRIVERS = (
    Driver(
        "rawfile",
        ("--list-snapshots",),
        (
            VolumeClass("rawfile"),
            VolumeClass("rawfile-wffc", "WaitForFirstConsumer"),
            VolumeClass(UNFROZEN, parameters=_NO_FREEZE),
        ),
        (SnapshotClass("rawfile"), SnapshotClass(UNFROZEN, _NO_FREEZE)),
    ),
    Driver("plain", ("--no-snapshots",), (VolumeClass("plain"),)),
)


@dataclass(frozen=True)
class Sidecars:
    """The sidecars of CSI, all of them as processes of this machine."""

    settings: Settings
    binaries: dict[str, Path]
    kubeconfig: Path
    authority: Authority

    def programs(self) -> list[Program]:
        """Describe every process: the controller of snapshots, each driver and what speaks to it."""
        common = [self._sidecar("snapshot-controller", "", *_RETRIES, *_CLIENT_LIMITS, _RESYNC)]
        return common + [program for driver in DRIVERS for program in self._of(driver)]

    def _of(self, driver: Driver) -> list[Program]:
        socket = f"--csi-address={driver.socket(self.settings)}"
        common = (socket, "--timeout=60s", *_CLIENT_LIMITS)
        retried = (*common, *_RETRIES, "--extra-create-metadata")
        programs = [
            self._driver(driver),
            self._sidecar("csi-provisioner", driver.short, *retried, "--default-fstype=ext4"),
        ]
        if driver.has_snapshots:
            programs.append(self._sidecar("csi-snapshotter", driver.short, *retried, _RESYNC))
            programs.append(self._metadata(driver, *common))
        return programs

    def _driver(self, driver: Driver) -> Program:
        command = (
            sys.executable,
            "-m",
            "tests.cluster.csi",
            f"--name={driver.name}",
            f"--data={driver.data(self.settings)}",
            f"--kubelet-dir={self.settings.kubelet_directory}",
            f"--node={NODE}",
            *driver.flags,
        )
        # The driver asks go for the protocol files that it is generated from.
        path = os.pathsep.join([str(golang.go().parent), os.environ.get("PATH", os.defpath)])
        return Program(driver.program, command, {"PATH": path}, str(_ROOT), restarts=True)

    def _metadata(self, driver: Driver, *flags: str) -> Program:
        certificate, key = self.authority.server(
            "snapshot-metadata", ["DNS:localhost", "IP:127.0.0.1", f"IP:{self.settings.address}"]
        )
        port = self.settings.ports["snapshot-metadata"]
        served = (f"--port={port}", f"--tls-cert={certificate}", f"--tls-key={key}")
        return self._sidecar("csi-snapshot-metadata", driver.short, *flags, *served)

    def _sidecar(self, tool: str, suffix: str, *flags: str) -> Program:
        command = (str(self.binaries[tool]), f"--kubeconfig={self.kubeconfig}", *flags, "-v=2")
        return Program("-".join(filter(None, [tool, suffix])), command, restarts=True)


def classes() -> list[Manifest]:
    """Return the objects that make the drivers' volumes available."""
    offered = [(driver, offer) for driver in DRIVERS for offer in driver.classes]
    return [_csi_driver(driver) for driver in DRIVERS] + [
        _storage_class(driver, offer, is_default=number == 0) for number, (driver, offer) in enumerate(offered)
    ]


def snapshot_classes() -> list[Manifest]:
    """Return the objects that make the drivers' snapshots available."""
    return [
        {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshotClass",
            # Where none is the default, changed blocks of a snapshot without a class are refused.
            "metadata": {"name": offer.name, "annotations": {_DEFAULT_SNAPSHOT_CLASS: str(number == 0).lower()}},
            "driver": driver.name,
            "deletionPolicy": "Delete",
            **_parameters(offer),
        }
        for driver in DRIVERS
        for number, offer in enumerate(driver.snapshot_classes)
    ]


def metadata_services(settings: Settings, authority: Authority) -> list[Manifest]:
    """Return the objects that tell where changed blocks are asked for. The audience is the driver's name."""
    certificate = base64.b64encode(authority.certificate.read_bytes()).decode()
    address = f"{settings.address}:{settings.ports['snapshot-metadata']}"
    return [
        {
            "apiVersion": "cbt.storage.k8s.io/v1alpha1",
            "kind": "SnapshotMetadataService",
            "metadata": {"name": driver.name},
            "spec": {"address": address, "audience": driver.name, "caCert": certificate},
        }
        for driver in DRIVERS
        if driver.has_snapshots
    ]


def _csi_driver(driver: Driver) -> Manifest:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSIDriver",
        "metadata": {"name": driver.name},
        "spec": {
            "attachRequired": False,
            "podInfoOnMount": False,
            "fsGroupPolicy": "File",
            "volumeLifecycleModes": ["Persistent"],
        },
    }


def _storage_class(driver: Driver, offer: VolumeClass, is_default: bool) -> Manifest:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": offer.name, "annotations": {_DEFAULT_CLASS: str(is_default).lower()}},
        "provisioner": driver.name,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": offer.binding_mode,
        **_parameters(offer),
    }


def _parameters(offer: VolumeClass | SnapshotClass) -> Manifest:
    """Omit empty values: the API server treats them as a change of an immutable field when they are applied again."""
    return {"parameters": offer.parameters} if offer.parameters else {}
