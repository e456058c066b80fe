"""The settings of one cluster, chosen at its first start and kept until it is removed."""

import dataclasses
import ipaddress
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import choices, files, host_state
from tests.cluster.errors import ClusterError

NODE = "node1"
DEFAULT_DIRECTORY = "/var/lib/cinderblock-cluster"
_LONGEST = 44
"""Sockets lie up to 62 characters deeper, and the kernel takes no path of more than 107."""
_PORTS = (
    "etcd",
    "etcd-peer",
    "apiserver",
    "kubelet",
    "kubelet-health",
    "proxy-health",
    "proxy-metrics",
    "snapshot-metadata",
)
_FILE = "cluster.json"


@dataclass(frozen=True)
class Settings:
    """Settings that must not change during the life of a cluster."""

    directory: Path
    name: str
    """Name of the bridge, the control group and the CNI network. Comments of packet filter rules contain it too."""
    pods: str
    services: str
    ports: Mapping[str, int]
    sysctls: Mapping[str, str]
    """Kernel settings that the cluster changes, as they were before."""
    absent_folders: Sequence[str]
    """Folders elsewhere that were not there before."""

    @property
    def address(self) -> str:
        """Return the bridge's address: the node's own, and the address of this machine for pods."""
        return str(next(ipaddress.IPv4Network(self.pods).hosts()))

    @property
    def service_address(self) -> str:
        """Return the address of the API server's own Service."""
        return str(next(ipaddress.IPv4Network(self.services).hosts()))

    @property
    def server(self) -> str:
        """Return the URL of the API server, for this machine and for pods."""
        return f"https://{self.address}:{self.ports['apiserver']}"

    @property
    def kubeconfig(self) -> Path:
        """Return the administrator's kubeconfig."""
        return self.directory / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        """Return the log of requests from the chart's accounts: one JSON object per line, without bodies."""
        return self.directory / "audit" / "requests.log"

    def environment(self) -> dict[str, str]:
        """Return what a program needs to use the cluster, or to be a part of it."""
        known = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
        # kubectl and all its kin would send what is for a node or a Service to this machine's proxy, if it has one.
        no_proxy = ",".join(filter(None, [known, "localhost,127.0.0.1", self.pods, self.services]))
        path = os.pathsep.join([str(self.directory / "bin"), os.environ.get("PATH", os.defpath)])
        return {"KUBECONFIG": str(self.kubeconfig), "PATH": path, "NO_PROXY": no_proxy, "no_proxy": no_proxy}

    @property
    def complete(self) -> Path:
        """Return a file that exists after everything has been started once."""
        return self.directory / "complete"

    @property
    def kubelet_directory(self) -> Path:
        """Return the root directory of the kubelet, which CSI drivers need to know."""
        return self.directory / "kubelet"

    @property
    def containerd_socket(self) -> Path:
        """Return the socket of containerd."""
        return self.directory / "containerd.sock"


def directory() -> Path:
    """Return the state directory: CINDERBLOCK_CLUSTER_DIR, or the default. Raises ClusterError."""
    path = Path(os.path.realpath(os.environ.get("CINDERBLOCK_CLUSTER_DIR") or DEFAULT_DIRECTORY))
    if len(str(path)) > _LONGEST:
        raise ClusterError(
            f"the state directory {path} has {len(str(path))} characters; sockets in it allow {_LONGEST}: "
            "set CINDERBLOCK_CLUSTER_DIR to a shorter path"
        )
    return path


def load() -> Settings | None:
    """Return the settings of the cluster in the state directory, if there is one."""
    path = directory() / _FILE
    try:
        kept = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return Settings(directory=path.parent, **kept)


def create() -> Settings:
    """Make choices for a new cluster and write them down, before anything is changed. Raises ClusterError."""
    path = directory()
    if path.exists() and not _is_unused(path):
        # `down` removes the directory: it must hold nothing but the cluster's.
        raise ClusterError(f"{path} holds something that is no cluster; remove it or set CINDERBLOCK_CLUSTER_DIR")
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o711)
    pods = choices.free_network([], "CINDERBLOCK_POD_CIDR")
    services = choices.free_network([pods], "CINDERBLOCK_SERVICE_CIDR")
    settings = Settings(
        directory=path,
        name=_name(),
        pods=str(pods),
        services=str(services),
        ports=_ports(),
        sysctls=host_state.sysctls(),
        absent_folders=host_state.absent_folders(),
    )
    _write(settings)
    return settings


def _is_unused(path: Path) -> bool:
    """Return whether the directory is empty, or was left by a `create` that was killed."""
    return all(entry == files.partial(path / _FILE) for entry in path.iterdir())


def _ports() -> dict[str, int]:
    """Return a port for each listener: what its environment variable says, else one that nobody uses."""
    return {
        name: choices.asked_port(f"CINDERBLOCK_PORT_{name.upper().replace('-', '_')}") or free
        for name, free in zip(_PORTS, choices.free_ports(len(_PORTS)), strict=True)
    }


def _name() -> str:
    taken = ["/sys/class/net", "/sys/fs/cgroup", "/sys/fs/cgroup/memory"]
    return os.environ.get("CINDERBLOCK_BRIDGE") or choices.free_name("cbk", taken)


def _write(settings: Settings) -> None:
    kept = {field: value for field, value in dataclasses.asdict(settings).items() if field != "directory"}
    files.write(settings.directory / _FILE, json.dumps(kept, indent=2))
