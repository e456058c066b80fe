"""All programs of a cluster, with the settings, keys and kubeconfigs that they share."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.cluster import containers, controlplane, kubeconfigs, nodes, pki, toolchain
from tests.cluster.api import Api
from tests.cluster.programs import Program
from tests.cluster.settings import NODE, Settings
from tests.cluster.storage import Sidecars

TOOLS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "coredns",
    "csi-provisioner",
    "csi-snapshotter",
    "snapshot-controller",
    "csi-snapshot-metadata",
    "versitygw",
    "helm",
    "pause",
)


@dataclass(frozen=True)
class Components:
    """Describe the programs of one cluster, and write their files."""

    settings: Settings

    @cached_property
    def binaries(self) -> dict[str, Path]:
        """Return the paths of the built programs."""
        return toolchain.ensure(TOOLS)

    @cached_property
    def authority(self) -> pki.Authority:
        """Return the authority that signs this cluster's certificates."""
        return pki.Authority(self._pki)

    @cached_property
    def api(self) -> Api:
        """Return a client of the API server with the administrator's token."""
        return Api(self.settings.server, self.authority.certificate, self._tokens[pki.ADMINISTRATOR])

    def control_plane(self) -> list[Program]:
        """Describe what makes the API server answer."""
        settings, ports = self.settings, self.settings.ports
        server = controlplane.ApiServer(
            binary=self.binaries["kube-apiserver"],
            directory=self._pki,
            authority=self.authority,
            tokens=pki.token_file(self._pki),
            etcd_port=ports["etcd"],
            port=ports["apiserver"],
            address=settings.address,
            services=settings.services,
            alternatives=(f"IP:{settings.service_address}",),
            has_nodes=True,
            audit_log=settings.audit_log,
        )
        etcd = controlplane.etcd(self.binaries["etcd"], settings.directory / "etcd", ports["etcd"], ports["etcd-peer"])
        kubeconfigs.write(
            settings.kubeconfig, settings.server, self.authority.certificate, self._tokens[pki.ADMINISTRATOR]
        )
        return [etcd, server.program()]

    def runtime(self) -> Program:
        """Describe what runs containers."""
        return containers.program(self.settings)

    def controllers(self) -> list[Program]:
        """Describe what makes the API server's objects come true."""
        settings = self.settings
        manager = controlplane.controller_manager(
            self.binaries["kube-controller-manager"],
            self._kubeconfig("controller-manager"),
            self.authority,
            settings.directory,
        )
        configuration = controlplane.scheduler_configuration(self._kubeconfig("scheduler"))
        path = nodes.write_configuration(settings, "scheduler.json", configuration)
        return [manager, controlplane.scheduler(self.binaries["kube-scheduler"], path)]

    def node(self) -> list[Program]:
        """Describe what makes this machine a node."""
        settings, binaries = self.settings, self.binaries
        return [
            nodes.kubelet(settings, binaries["kubelet"], self._kubeconfig("kubelet"), self.authority),
            nodes.proxy(settings, binaries["kube-proxy"], self._kubeconfig("proxy")),
            nodes.dns(settings, binaries["coredns"], settings.kubeconfig),
        ]

    def storage(self) -> list[Program]:
        """Describe what makes volumes and snapshots."""
        return Sidecars(self.settings, self.binaries, self.settings.kubeconfig, self.authority).programs()

    @property
    def _pki(self) -> Path:
        return self.settings.directory / "pki"

    @cached_property
    def _tokens(self) -> dict[str, str]:
        return pki.tokens(self.authority.directory, NODE)

    def _kubeconfig(self, who: str) -> Path:
        path = self.settings.directory / "conf" / f"{who}.kubeconfig"
        return kubeconfigs.write(path, self.settings.server, self.authority.certificate, self._tokens[who])
