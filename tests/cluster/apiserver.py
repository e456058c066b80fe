"""An API server with its etcd and nothing else, for tests that need no node: `with apiserver.running() as server:`."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.cluster import choices, controlplane, crds, kubeconfigs, pki, processes, toolchain
from tests.cluster.api import Api
from tests.cluster.errors import ClusterError
from tests.cluster.processes import Process
from tests.cluster.scopes import scope
from tests.cluster.settings import NODE

_ADDRESS = "127.0.0.1"
_SERVICES = "10.0.0.0/24"
"""Nothing routes there: without nodes no Service is more than an object."""


@dataclass(frozen=True)
class ApiServer:
    """A running API server."""

    url: str
    token: str
    """The administrator's."""
    authority: Path
    """File with the certificate to verify the server with."""
    kubeconfig: Path
    """The administrator's, with the authority inside."""
    etcd: str
    """URL of its etcd, which asks nobody for a password."""

    def process(self) -> Process:
        """Return the process that serves now. Raises ClusterError if there is none at this moment."""
        mine = processes.with_argument(f"--secure-port={self.url.rpartition(':')[2]}")
        # The supervisor has the same word in its command line.
        found = next((one for one in mine if Path(f"/proc/{one.pid}/exe").resolve().name == "kube-apiserver"), None)
        if found is None:
            raise ClusterError(f"no process serves {self.url}")
        return found


@contextlib.contextmanager
def running(with_snapshots: bool = False, restarts: bool = False) -> Iterator[ApiServer]:
    """Run an API server, empty at first, until the block ends; optionally it knows the kinds of CSI snapshots.

    With `restarts`, it is restarted when it dies. Its state is in etcd, which keeps running.

    It uses free ports and a temporary directory, and verifies tokens, RBAC and admission like any other.
    Raises ClusterError if it does not start.
    """
    binaries = toolchain.ensure(["etcd", "kube-apiserver"])
    with scope("apiserver-") as programs:
        directory = programs.directory
        etcd_port, peer_port, port = choices.free_ports(3)
        authority = pki.Authority(directory / "pki")
        token = pki.tokens(authority.directory, NODE)[pki.ADMINISTRATOR]
        described = controlplane.ApiServer(
            binary=binaries["kube-apiserver"],
            directory=authority.directory,
            authority=authority,
            tokens=pki.token_file(authority.directory),
            etcd_port=etcd_port,
            port=port,
            address=_ADDRESS,
            services=_SERVICES,
            alternatives=(),
            has_nodes=False,
        )
        programs.start(controlplane.etcd(binaries["etcd"], directory / "etcd", etcd_port, peer_port))
        programs.start(replace(described.program(), restarts=restarts))
        url = f"https://{_ADDRESS}:{port}"
        api = Api(url, authority.certificate, token)
        programs.wait("kube-apiserver", api.is_ready, 60)
        if with_snapshots:
            api.apply_definitions(crds.snapshots())
        kubeconfig = kubeconfigs.write(directory / "kubeconfig", url, authority.certificate, token)
        yield ApiServer(url, token, authority.certificate, kubeconfig, f"http://{_ADDRESS}:{etcd_port}")
